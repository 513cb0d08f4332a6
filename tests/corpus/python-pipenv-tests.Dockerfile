FROM python:3.10 as base
RUN pip install pipenv
WORKDIR /usr/src/app
COPY Pipfile Pipfile.lock ./
RUN pipenv install --system --deploy

FROM base as test
RUN pipenv install --system --deploy --dev
COPY . .
RUN pytest -q

FROM base as release
COPY src src
USER nobody
CMD ["python", "-m", "src.main"]
