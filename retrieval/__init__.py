"""Finding a person by a sentence: encoding, ITM re-ranking, metrics, result files, pictures.

This room knows a model only through its three verbs (`retrieval.verbs`) and knows no method, dataset or script.
"""
