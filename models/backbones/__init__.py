"""What the methods stand on: a folder per backbone, and beside the folders what backbones share."""
