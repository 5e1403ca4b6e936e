curl --request POST \
  --url 'https://secure.sandbox.paymentsgate.io/auth/token' \
  --header 'Content-Type: application/json' \
  --data '{
    "account_id": "00000000-0000-4000-0000-000000000000",
    "public_key": "LS0tLS1CRUdJTiBQV....."
  }'
