# The samples of compose.yaml: legacy service, executor, callers, a Celery and a Temporal worker. No part of the product.
FROM python:3.13-slim
RUN pip install --no-cache-dir 'celery[redis]>=5.4,<6' 'temporalio>=1.9,<2' 'PyYAML>=6,<7' \
 && useradd --system --uid 10002 --home-dir /samples --no-create-home samples
COPY scripts/sample packaging/compose/*.py packaging/compose/flags.yml /samples/
WORKDIR /samples
ENV PYTHONDONTWRITEBYTECODE=1
USER 10002:10002
