curl -s -X POST "$API/v1/processing-terminals/$TERMINAL/hosted-fields-sessions" \
  -H "Content-Type: application/json" \
  -H "Authorization: Bearer $TOKEN" \
  -H "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)" \
  -d "{\"libVersion\":\"$LIBRARY\",\"scenario\":\"payment\"}"
