"""Using a trained model on one's own images: an index that follows its folder, commands and a web page."""
