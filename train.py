"""Stage 4: rounds of clustering, label correction and training (methods: CMLC and FSRA)."""

from engine.stage import main
from engine.stages.search_training import train_search

if __name__ == "__main__":
    main(train_search, __doc__)
