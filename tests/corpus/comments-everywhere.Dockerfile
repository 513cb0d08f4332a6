# This file has comments
#and one without a space
	# and one behind a tab

FROM alpine
  # indented
RUN echo 'a # b' # the shell's comment
#RUN commented out
CMD ["sh"] 
#last
