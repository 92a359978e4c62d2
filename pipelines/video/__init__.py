"""Any video file or folder of images to frames, in bounded memory."""
