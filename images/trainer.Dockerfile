FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements/trainer.txt requirements/trainer.txt
RUN pip install --no-cache-dir --require-hashes --target /opt/tollgate/requirements -r requirements/trainer.txt
COPY pyproject.toml README.md ./
COPY core core
COPY cli cli
COPY operator operator
COPY trainer trainer
COPY local local
RUN pip install --no-cache-dir --no-deps --target /opt/tollgate/lib . \
 && printf '#!/usr/bin/env python3\nfrom tollgate_trainer.launch import main\n\nraise SystemExit(main())\n' > /opt/tollgate/tollgate-launch \
 && chmod 755 /opt/tollgate/tollgate-launch

FROM python:3.11-slim-bookworm
COPY --from=build /opt/tollgate /opt/tollgate
COPY --from=build /opt/tollgate/tollgate-launch /usr/local/bin/tollgate-launch
ENV PYTHONPATH=/opt/tollgate/lib:/opt/tollgate/requirements PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
CMD ["tollgate-launch"]
