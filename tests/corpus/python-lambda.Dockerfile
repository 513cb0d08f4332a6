FROM public.ecr.aws/lambda/python:3.12
COPY requirements.txt ${LAMBDA_TASK_ROOT:-/var/task}
RUN pip install -r requirements.txt
COPY function.py ${LAMBDA_TASK_ROOT:-/var/task}/
CMD [ "function.handler" ]
