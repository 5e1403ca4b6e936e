package main

// This file has the texts that the demo's directory begins with.

const demoConfig = `# Made by "cardstile demo", which writes it anew at each start. "cardstile serve --config" accepts it unchanged, beside "cardstile sandbox".
environment: test

listeners:
  partners:
    address: "127.0.0.1:%[1]d"
    tls: {certificate: server.pem, key: server-key.pem, client_ca: partners-ca.pem}
  public:
    address: "127.0.0.1:%[2]d"
    tls: {certificate: server.pem, key: server-key.pem}

admin: {address: "127.0.0.1:%[3]d"}

store: {memory: {logins_file: logins}}

keys:
  - {id: session-demo, use: session, file: session-key.pem}
  - {id: storage-demo, use: storage, file: storage-key.pem}
  - {id: digest-demo, use: digest, file: digest-key.pem}
  - {id: cookie-demo, use: cookie, file: cookie-key.pem}
  - {id: jwt-demo, use: jwt, file: jwt-key.pem}
  - {id: audit-demo, use: audit, file: audit-key.pem}

partners:
  - id: gp-demo
    certificate: {subject: "CN=gp_f1a9b6c741c94510bb3b27f2e8379e29,C=US"}
    terminals: ["1234001"]
    accounts:
      - {id: 00000000-0000-4000-0000-000000000000, public_keys: [service-account-public.pem], login: public_key, requests: optional}

issuers:
  rain:
    kind: rain
    url: %[4]s
    ca: ca.pem
    api_key_file: rain-api-key
    public_key: rain-public.pem
  payments:
    kind: forward
    leg: clear
    url: %[5]s
    ca: ca.pem
    api_key_file: payments-api-key
  payroc:
    kind: payroc
    url: %[6]s
    ca: ca.pem
    api_key_file: payroc-issuer-key
    public_key: payroc-public.pem
  cards:
    kind: gnosispay
    url: %[7]s
    ca: ca.pem
    api_key_file: cards-api-key
    public_key: cards-public.pem

# What a real deployment would think about twice is switched on by name.
routes:
  - {listener: partners, face: gnosispay, issuer: rain, operations: [token.mint]}
  - listener: public
    face: gnosispay
    issuer: rain
    session_key: session-demo
    operations: [card.reveal, pin.reveal, pin.set, challenge.mint]
    unbound_tokens: allow
    pin: software
    legacy: [oaep-sha1]
    user_tokens: {jwks: users-jwks.json, issuer: "https://users.example", audience: cardstile-demo}
    typed_data: {name: Cardstile demo}
    origins: [https://app.example, "https://localhost:%[2]d"]
    apps:
      - {id: demo, partner: gp-demo, origins: [https://app.example, "https://localhost:%[2]d"], page: {same_origin: true}}
      - {page: {same_origin: true}, id: gp-demo, partner: "gp-demo", origins: ["https://app.example", "https://localhost:%[2]d"]} # by the partner's name
  - {listener: public, face: gnosispay, issuer: cards, operations: [card.verify], session_key: "session-demo", legacy: ["oaep-sha1"],
     origins: [https://app.example, "https://localhost:%[2]d"],
     user_tokens: {jwks: users-jwks.json, issuer: "https://users.example", audience: cardstile-demo}}
  - listener: public
    face: exa
    issuer: rain
    partner: gp-demo
    session_key: session-demo
    cookie_key: cookie-demo
    jwt_key: jwt-demo
    domain: localhost
    origins: [https://app.example, "https://localhost:%[2]d"]
    pin: software
    pin_with_pan: true
    legacy: [oaep-sha1]
  - {listener: public, face: bridge, issuer: rain, client_leg: clear}
  - listener: public
    face: paymentsgate
    issuer: payments
    session_key: session-demo
    jwt_key: jwt-demo
    legacy: [oaep-sha1]
    forward:
      - {method: GET, path: /wallet}
      - {method: GET, path: /wallet/deposit}
      - {method: POST, path: /deals/payin}
      - {method: POST, path: /deals/payout}
      - {method: POST, path: /deals/tlv}
      - {method: GET, path: /deals/list}
      - {method: GET, path: "/deals/{id}"}
      - {method: GET, path: "/deals/{id}/credentials", fields: {/account_number: account}}
      - {method: GET, path: /fx/calculation}
      - {method: GET, path: /banks/find}

  - listener: public
    face: payroc
    issuer: payroc
    jwt_key: jwt-demo
    client_leg: clear
    origins: [https://app.example, "https://localhost:%[2]d"]
    hosted_fields: {libraries: [1.7.0.261457], page: {same_origin: true, theme: {color-scheme: light dark}}}
    forward:
      - {method: POST, path: /v1/payments, card_token: /paymentMethod, terminal: /processingTerminalId}

policies: [policies/*.cedar]
holders: holders.yaml
credentials: credentials.json

limits: {partner: 100000/m, credential: 100000/m, anonymous: 100000/m, login: 100000/m, page: 100000/m, user: 100000/m, card: 100000/m, pin_reveal: 100000/m, pin_set: 100000/m, failed_opens: 100000/m, unproven: 100000/m}

audit: {file: audit.jsonl}
`

const demoHolders = `# Whose card is whose. The issuer has another card, which is nobody's here: it is refused like one that does not exist.
cards:
  - {id: %[1]q, issuer: rain, partners: [gp-demo], users: [%[3]q], environment: test}
  - {id: %[2]q, issuer: rain, issuer_card: %[1]q, partners: [gp-demo], users: [%[4]q], environment: test} # as callers of face bridge call it
users:
  - {id: %[3]q, partner: gp-demo, issuer: rain, issuer_user: %[5]q}
  - {id: %[4]q, partner: gp-demo, issuer: rain, issuer_user: %[5]q}
`

const demoPolicies = `// Default deny: what no policy permits is not done.

@id("partners-mint")
permit (principal is Partner, action == Action::"token.mint", resource)
when { context.proofs.certificate };

@id("token-opens-card")
permit (principal, action in [Action::"card.reveal", Action::"pin.reveal", Action::"pin.set"], resource)
when { context.proofs.token };

@id("user-sees-own-card")
permit (principal, action in [Action::"card.profile", Action::"card.reveal", Action::"pin.reveal", Action::"card.provision"], resource)
when { context.proofs.cookie && context has user };

@id("user-changes-own-card")
permit (principal, action in [Action::"card.status", Action::"card.mode", Action::"pin.set", Action::"challenge.mint"], resource)
when { context.proofs.cookie && context has user };

@id("user-signs-for-card")
permit (principal, action == Action::"card.link", resource)
when { context.proofs.cookie && (context.proofs.wallet || context.proofs.passkey) };

@id("wallet-extension-provisions")
permit (principal, action == Action::"card.provision", resource)
when { context.proofs.jwt && context has user };

@id("anybody-may-try-to-log-in")
permit (principal is Anonymous, action == Action::"challenge.mint", resource is Issuer)
when { context.face == "exa" };

@id("whoever-signed-is-logged-in")
permit (principal, action == Action::"session.mint", resource)
when { context.proofs.wallet || context.proofs.passkey };

@id("partner-with-key")
permit (principal is Partner, action in [Action::"token.mint", Action::"card.profile", Action::"card.status"], resource is Card)
when { context.proofs.api_key };

@id("accounts-log-in")
permit (principal is Partner, action == Action::"session.mint", resource)
when { context.proofs.public_key || context.proofs.signature };

@id("accounts-stay-logged-in")
permit (principal is Partner, action in [Action::"session.refresh", Action::"session.revoke"], resource)
when { context.proofs.refresh };

@id("accounts-call")
permit (principal is Partner, action in [Action::"forward", Action::"session.check"], resource)
when { context.proofs.jwt };

// A public key proves next to nothing: a real deployment would ask for context.assurance == "high" here.
@id("accounts-see-credentials")
permit (principal is Partner, action in Action::"forward.reveal", resource)
when { context.proofs.jwt };

@id("users-sign-for-card")
permit (principal, action == Action::"challenge.mint", resource is Card)
when { context.proofs.jwt && context has user };

@id("users-bring-cards")
permit (principal, action == Action::"card.verify", resource)
when { context.proofs.jwt && context has user };

@id("partners-exchange-keys")
permit (principal is Partner, action == Action::"session.mint", resource)
when { context.face == "payroc" && context.proofs.api_key };

@id("partners-begin-hosted-fields")
permit (principal is Partner, action == Action::"fields.mint", resource)
when { context.proofs.jwt };

@id("pages-submit-fields")
permit (principal is Partner, action in [Action::"fields.read", Action::"field.submit", Action::"token.mint"], resource)
when { context.proofs.fields };

@id("partners-pay-with-held-cards")
permit (principal is Partner, action in Action::"forward.submit", resource)
when { context.proofs.jwt && context.proofs.card_token };
`
