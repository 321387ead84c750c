"""What networks are judged by: their answers, how far two networks agree, and what one lost against the other."""
