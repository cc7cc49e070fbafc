"""Records to tokenised examples: tokenizers, chats, labels."""
