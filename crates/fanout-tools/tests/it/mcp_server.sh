# An MCP server on standard streams that does what the tests ask of it. DIR holds what outlives it; MODE is how it begins.
echo start >>"$DIR/starts"
starts=$(wc -l <"$DIR/starts" | tr -d ' ')
echo "start $starts" >&2
if [ "$MODE" = never ] || { [ "$MODE" = once ] && [ "$starts" -gt 1 ]; }; then
  echo "no licence was found for $SECRET" >&2
  exit 3
fi
if [ "$MODE" = silent ]; then exec sleep 1000; fi
object='"inputSchema":{"type":"object","properties":{"path":{"type":"string"}}}'
gone='' cancelled='' waiting='' listing='' relisted='' held='' progressing=''

say() { printf '%s\n' "$1"; }
result() { say "{\"jsonrpc\":\"2.0\",\"id\":$1,\"result\":$2}"; }
text() { result "$1" "{\"content\":[{\"type\":\"text\",\"text\":\"$2\"}]}"; }
tool() { printf '{"name":"%s",%s,"annotations":{"readOnlyHint":%s}},' "$1" "$object" "$2"; }
list() {
  for name in where second data fail refuse finish meet hang die asked drop relisted; do tool "$name" false; done
  [ -n "$gone" ] || tool old false
  if [ -n "$gone" ]; then tool look false; else tool look true; fi
  printf '{"name":"progress",%s}' "$object"
}

# Servers print such lines; nobody minds.
echo 'this is no message'
printf '\377\376\n\n[]\n{"jsonrpc":1}\n"text"\n'
while IFS= read -r line; do
  id=${line#*'"id":'}
  id=${id%%[,\}]*}
  case $line in
  *'"method":"initialize"'*)
    result "$id" '{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"script","version":"1"}}'
    ;;
  *'"method":"tools/list"'*)
    echo listing >>"$DIR/asked"
    [ "$MODE" != mute ] || continue
    result "$id" "{\"tools\":[$(list)]}"
    [ -z "$gone" ] || relisted=yes
    [ -z "$listing" ] || text "$listing" listed
    ;;
  *'"method":"notifications/cancelled"'*)
    cancelled=yes
    [ -z "$waiting" ] || text "$waiting" cancelled
    ;;
  *'"name":"where"'*) text "$id" "start $starts, HOME=$HOME, SECRET=$SECRET, in $(basename "$PWD")" ;;
  *'"name":"data"'*) result "$id" '{"content":[],"structuredContent":{"n":1}}' ;;
  *'"name":"fail"'*) result "$id" '{"content":[{"type":"text","text":"no such file"}],"isError":true}' ;;
  *'"name":"refuse"'*) say "{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{\"code\":-32602,\"message\":\"path is not allowed\"}}" ;;
  *'"name":"meet"'*)
    held="$held $id"
    # shellcheck disable=SC2086
    set -- $held
    if [ $# -eq 16 ]; then for one in "$@"; do text "$one" met; done; fi
    ;;
  *'"name":"hang"'*) ;;
  *'"name":"second"'*) [ "$starts" -eq 1 ] || text "$id" "start $starts" ;;
  *'"name":"die"'*)
    echo "dying of $id" >&2
    kill -KILL $$
    ;;
  *'"name":"asked"'*) if [ -n "$cancelled" ]; then text "$id" cancelled; else waiting=$id; fi ;;
  *'"name":"drop"'*)
    gone=yes
    say '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
    text "$id" dropped
    ;;
  *'"name":"relisted"'*) if [ -n "$relisted" ]; then text "$id" listed; else listing=$id; fi ;;
  *'"name":"progress"'*)
    token=${line#*'"progressToken":'}
    token=${token%%[,\}]*}
    say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":$token,\"progress\":1,\"total\":4,\"message\":\"a quarter\"}}"
    progressing=$id
    ;;
  *'"name":"finish"'*)
    text "$progressing" done
    text "$id" finished
    ;;
  *'"name":"'*) text "$id" called ;;
  esac
done
