FROM alpine
ARG FOO=bar
COPY <<-EOT /app/config.yaml
	name: ${FOO}
	path: ${FOO:-none}/data
	EOT
RUN cat <<FILE1 > file1 && cat <<FILE2 > file2
I am
first
FILE1
I am
second
FILE2
