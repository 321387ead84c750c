"""practise-deploy: a pretrained network made faster on its device from a handful of images."""

__version__ = "0.1.0"
