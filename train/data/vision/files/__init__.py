"""Images in files: found, decoded, cropped, standardised, or stored once as pixels."""
