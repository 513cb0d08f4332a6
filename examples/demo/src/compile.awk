# Compiles lines of «language greeting…» into the shell function `greet LANGUAGE NAME`.
BEGIN { print "greet() {"; print "  case $1 in" }
/^#/ || NF < 2 { next }
{
    language = $1
    sub(/^[^ ]+ +/, "")
    sub(/NAME/, "$2")
    printf "    %s) echo \"%s\" ;;\n", language, $0
}
END { print "    *) echo \"no greeting in $1\" ;;"; print "  esac"; print "}" }
