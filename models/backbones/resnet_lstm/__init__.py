"""ResNet and LSTM: image encoder, word vocabulary, text encoder, relations between parts, and ImageNet's weights."""
