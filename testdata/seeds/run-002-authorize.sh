curl -s -X POST "$IDENTITY/authorize" \
  -H "x-api-key: $API_KEY"
