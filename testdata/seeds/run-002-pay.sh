curl -s -X POST "$API/v1/payments" -w '%{http_code}\n' \
  -H "Content-Type: application/json" \
  -H "Authorization: Bearer $(cat bearer)" \
  -H "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)" \
  -d "{\"channel\":\"web\",\"processingTerminalId\":\"$TERMINAL\",\"order\":{\"orderId\":\"o-1\",\"amount\":4999,\"currency\":\"USD\"},\"paymentMethod\":{\"type\":\"singleUseToken\",\"token\":\"$(jq -r .token minted.json)\"}}"
