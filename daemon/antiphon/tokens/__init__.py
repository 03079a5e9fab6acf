"""Between ids and what musicians mean by them: the vocabulary, REMI both ways, and the grammar of legal sequences."""
