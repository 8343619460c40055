"""Find a person by a sentence in a folder of your own images: index it, ask it, serve a web page; publish or export the model.

python search.py crop --from VIDEO --out DIR
python search.py index --images DIR --checkpoint output/RUN/best.pth --out INDEX
python search.py query --index INDEX "a man in a red jacket and black trousers" --rerank 32 --sheet found.jpg
python search.py serve --index INDEX
python search.py publish --checkpoint output/RUN/best.pth --to DIR
python search.py export --checkpoint output/RUN/best.pth --to DIR
"""

from serving.command_line import main

if __name__ == "__main__":
    main(__doc__)
