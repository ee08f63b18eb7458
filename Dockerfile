# The environment of `make run`, made by the Makefile itself.
#   docker build -t dgm .                                              CPU
#   docker build -t dgm --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 .     CUDA (torch's wheel brings its own libraries)
#   docker run --rm -v "$PWD/reports:/benchmark/reports" dgm make run
ARG BASE=python:3.11-bookworm
FROM ${BASE}

RUN apt-get update \
 && apt-get install -y --no-install-recommends git make gcc g++ npm python3 python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /benchmark
# the environment first: an edit of the code does not make it again
COPY Makefile pyproject.toml requirements.lock README.md LICENSE ./
COPY dgm/__init__.py dgm/__init__.py
COPY stages/machine.py stages/machine.py
RUN make environment
COPY . .
CMD ["make", "test"]
