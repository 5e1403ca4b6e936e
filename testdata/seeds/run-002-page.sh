# What a page of hosted fields calls: the configuration, each field, a token. Prints the statuses of the fields.
page="$API/merchant/api/v2/hosted-fields-sessions/$(cat token)"
call() { curl -s -H "Content-Type: application/json" -H "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)" "$@"; }
call -o configuration.json -f "$page/configuration"
a=$(call -o /dev/null -w '%{http_code}' -d "{\"cardNumber\":\"$pan\",\"type\":\"cardNumber\"}" "$page/fields")
b=$(call -o /dev/null -w '%{http_code}' -d '{"expiryDate":"1230","type":"expiryDate"}' "$page/fields")
c=$(call -o /dev/null -w '%{http_code}' -d "{\"cvv\":\"$cvc\",\"type\":\"cvv\"}" "$page/fields")
call -o minted.json -f -X POST "$page/single-use-tokens"
echo "$a $b $c"
