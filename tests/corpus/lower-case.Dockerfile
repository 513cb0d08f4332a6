from alpine:3.18 as build
run apk add --no-cache gcc musl-dev
copy main.c /src/
run gcc -static -o /main /src/main.c
from scratch
copy --from=build /main /main
cmd ["/main"]
