FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements/operator.txt requirements/operator.txt
RUN pip install --no-cache-dir --require-hashes --target /opt/tollgate/requirements -r requirements/operator.txt
COPY pyproject.toml README.md ./
COPY core core
COPY cli cli
COPY operator operator
COPY trainer trainer
COPY local local
RUN pip install --no-cache-dir --no-deps --target /opt/tollgate/lib .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/tollgate /opt/tollgate
ENV PYTHONPATH=/opt/tollgate/lib:/opt/tollgate/requirements PATH=/opt/tollgate/lib/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
ENTRYPOINT ["python3", "-m", "tollgate_operator"]
