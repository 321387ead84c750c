"""Networks, images, blocks, surgery: what a network is and what can be done to it."""
