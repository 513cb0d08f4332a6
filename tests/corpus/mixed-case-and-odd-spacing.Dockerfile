From   debian:stable-slim
Maintainer A Person

Run  apt-get   update   && \
	  apt-get install -y   curl   
   # an indented comment

Env   A=1   B=2
	Copy	a.txt	b.txt	/data/
  Expose 80   443
Cmd [ "sh" ]
