package main

import (
	"net/netip"
	"time"

	"github.com/cardstile/cardstile/policy"
)

// Config is a configuration file. Every key is documented on its field here; docs/configuration.md is made from these
// comments. Paths are relative to the file. Secrets are paths to files, never values.
type Config struct {
	// Environment is `test` or `production`: what is of one never meets the other. Required. `production` refuses plain
	// files of `keys`, and generated ones. Keys of certificates, API keys and other secrets are plain files in both.
	Environment string `yaml:"environment"`

	// Listeners are where callers come in, by name.
	Listeners map[string]ListenerConfig `yaml:"listeners"`

	// Certificates is where the certificates of listeners' `tls.hosts` come from. A change needs a restart.
	Certificates *CertificatesConfig `yaml:"certificates"`

	// Admin is the operators' listener: `/metrics`, `/healthz`, `/readyz`.
	Admin AdminConfig `yaml:"admin"`

	// Store is what instances must agree on. Left out: in memory, for one instance. A change needs a restart.
	Store StoreConfig `yaml:"store"`

	// Keys are our own. Of several with one use, the first is the primary and the others still open and verify what was
	// made before a rotation. Uses `storage`, `digest` and `audit` are generated where they are left out and the store
	// is in memory. A change of the key of use `audit` needs a restart.
	Keys []KeyConfig `yaml:"keys"`

	// Partners are the organisations that call us.
	Partners []PartnerConfig `yaml:"partners"`

	// Issuers are the card issuers behind us, by name.
	Issuers map[string]IssuerConfig `yaml:"issuers"`

	// Routes put a face on a listener and an issuer behind it.
	Routes []RouteConfig `yaml:"routes"`

	// Policies are files of Cedar policies, as globs. Default deny: without a policy that permits, nothing is done.
	Policies []string `yaml:"policies"`

	// Holders is the holder directory: a YAML file that says whose card is whose. Required.
	Holders string `yaml:"holders"`

	// Credentials is the file of partners' API keys, kept by `cardstile partner credential`.
	Credentials string `yaml:"credentials"`

	// Limits bound what callers can take.
	Limits LimitsConfig `yaml:"limits"`

	// Audit is the record of what happened to cards. A change needs a restart.
	Audit AuditConfig `yaml:"audit"`

	// Log is for operators. Never card data. A change needs a restart.
	Log LogConfig `yaml:"log"`

	// Shutdown is how SIGTERM ends the process.
	Shutdown ShutdownConfig `yaml:"shutdown"`
}

// ListenerConfig is one place where callers come in.
type ListenerConfig struct {
	// Address is host and port to listen on, as in `:8443` or `192.0.2.1:8443`. A change needs a restart.
	Address string `yaml:"address"`

	// TLS is required: there is no clear text listener.
	TLS ListenerTLSConfig `yaml:"tls"`

	// HostClientCA are the authorities of partners' certificates of single hosts, in place of `tls.client_ca`, by name, as in
	// `{api.example.com: partners-ca.pem, "*.cards.example.com": cards-ca.pem}`. Connections that are made for such a name need
	// a certificate of these, and requests for it are answered on no others. `*.` stands for one label.
	HostClientCA map[string]string `yaml:"host_client_ca"`

	// ProxyProtocol believes the PROXY header, v1 or v2, of the listed load balancers, and requires it of them.
	ProxyProtocol ProxyProtocolConfig `yaml:"proxy_protocol"`

	// Environment overrides the configuration's.
	Environment string `yaml:"environment"`
}

// ListenerTLSConfig is a listener's side of TLS 1.3 and 1.2: `certificate` and `key`, or `hosts`.
type ListenerTLSConfig struct {
	// Certificate is a PEM file with the server's certificate and its chain. It is reloaded when it changes.
	Certificate string `yaml:"certificate"`

	// Key is a PEM file with the certificate's private key.
	Key string `yaml:"key"`

	// Hosts are names whose certificates are obtained and renewed as `certificates` says, in place of files. One may begin with
	// `*.`. A connection that names no host gets the first one's; one that names another is refused.
	Hosts []string `yaml:"hosts"`

	// ClientCA is a PEM file with the authorities of partners' certificates. Where it is set, every connection needs a
	// client certificate that one of them issued for client authentication.
	ClientCA string `yaml:"client_ca"`

	// Revocation holds client certificates against lists of their CAs, at each handshake and on open connections. Requires
	// `client_ca` or `host_client_ca`.
	Revocation *RevocationConfig `yaml:"revocation"`
}

// RevocationConfig says what CAs have revoked: `crl`, `ocsp` or both. See docs/certificates.md.
type RevocationConfig struct {
	// CRL are complete revocation lists, PEM or DER, one list in each: files, which are reloaded when they change, or URLs
	// (`https://`, `http://`), which are fetched again and again. A list in the name of a CA in `client_ca` or `host_client_ca` must
	// be signed by it; one from a URL by one of these, or of `intermediates`.
	CRL []string `yaml:"crl"`

	// Stale says what becomes of a certificate whose CA has no current list, because there is none (yet) or its `nextUpdate` has
	// passed: `hard` refuses it, `soft` lets it pass, and lists are then only as good as whoever brings them. Default `hard`.
	Stale string `yaml:"stale"`

	// Refresh is how long a list from a URL, or a responder's answer, is gone by before there is to be a new one: `1m` to `168h`. One
	// that ends sooner is renewed sooner. Default `1h`.
	Refresh time.Duration `yaml:"refresh"`

	// Cache is a directory in which the last good list of each URL is kept, so that the next start has them in force before their
	// servers answer, and nothing older takes their place. Listeners, and instances on one machine, can have one together.
	// Default: none are kept.
	Cache string `yaml:"cache"`

	// OCSP asks responders about client certificates too.
	OCSP *OCSPConfig `yaml:"ocsp"`

	// Destinations are the networks that connections to servers of lists and responders may go to, as those of issuers. Default:
	// public addresses, an address that a URL here itself names, and in `test` loopback.
	Destinations []netip.Prefix `yaml:"destinations"`

	// CA is a PEM file with the authorities of the servers of scheme https. Default: the system's.
	CA string `yaml:"ca"`

	// Intermediates is a PEM file with CAs below those of `client_ca`, whose lists may come from URLs too.
	Intermediates string `yaml:"intermediates"`
}

// OCSPConfig says how responders (RFC 6960) are asked about client certificates.
type OCSPConfig struct {
	// Responder is a URL (`https://`, `http://`) that is asked in place of the one that a client's certificate names. Intermediates are
	// asked about where they name one.
	Responder string `yaml:"responder"`

	// Mode says what becomes of a certificate of which no responder has said anything: `hard` refuses it, `soft` lets it pass. One of
	// which a responder says that it does not know it is refused by both. Default `hard`.
	Mode string `yaml:"mode"`

	// Timeout bounds a question, and with it what it adds to a handshake: at least `100ms`, and less than `limits.handshake`.
	// Default `2s`.
	Timeout time.Duration `yaml:"timeout"`
}

// CertificatesConfig says where the certificates of hosts come from, and where they are kept. See docs/certificates.md.
type CertificatesConfig struct {
	// CA is `acme` (an authority that speaks RFC 8555) or `local` (one of our own, for development: refused in production; its
	// certificate is what `cardstile certificates ca` prints). Default `acme`.
	CA string `yaml:"ca"`

	// ACME is the authority. Required with `ca: acme`.
	ACME *ACMEConfig `yaml:"acme"`

	// KeyType is that of the certificates' keys: `p256`, `p384`, `rsa2048` or `rsa4096`. Default `p256`.
	KeyType string `yaml:"key_type"`

	// Directory is where certificates are kept, sealed under the key of use `storage`: for one instance, or several on one
	// machine. Default: in the store, which must be Redis, so that all instances share them.
	Directory string `yaml:"directory"`

	// Destinations are the networks that connections to OCSP responders may go to, which certificates name, as those of issuers. Default:
	// public addresses, and in `test` loopback.
	Destinations []netip.Prefix `yaml:"destinations"`
}

// ACMEConfig is a certificate authority that speaks ACME (RFC 8555).
type ACMEConfig struct {
	// URL is its directory's, HTTPS. Default: Let's Encrypt's, `https://acme-v02.api.letsencrypt.org/directory`.
	URL string `yaml:"url"`

	// CA is a PEM file with the authorities that the directory's own certificate must come from, for a private one. Default:
	// the system's.
	CA string `yaml:"ca"`

	// Email is whom the authority writes to. Default: nobody.
	Email string `yaml:"email"`

	// Agree says that you agree to the authority's terms of service. Required.
	Agree bool `yaml:"agree"`

	// Challenge is how it is shown that a host is ours: `tls-alpn-01` (on the listener itself, to which port 443 must lead),
	// `http-01` (on a listener of its own, to which port 80 must lead) or `dns-01` (by a record, which wildcards need).
	// Default `tls-alpn-01`.
	Challenge string `yaml:"challenge"`

	// HTTPAddress is host and port of the listener of `http-01`. It answers challenges and nothing else. Required with it.
	HTTPAddress string `yaml:"http_address"`

	// DNS is who adds and removes the records of `dns-01`. Required with it.
	DNS *DNSConfig `yaml:"dns"`

	// Binding binds our account to one that the authority knows (external account binding).
	Binding *BindingConfig `yaml:"binding"`
}

// DNSConfig is who adds and removes DNS records: one of `program` and `webhook`. What they get stands in docs/certificates.md.
type DNSConfig struct {
	// Program is a program with its arguments. It gets each change as JSON on standard input, and exits with 0.
	Program []string `yaml:"program"`

	// Webhook is a URL, HTTPS, or HTTP on loopback. It gets each change as JSON by POST, and answers 2xx.
	Webhook string `yaml:"webhook"`

	// CA is a PEM file with the authorities that the web hook's certificate must come from. Default: the system's.
	CA string `yaml:"ca"`

	// BearerFile is a file with a token that the web hook is sent as `Authorization: Bearer`.
	BearerFile string `yaml:"bearer_file"`

	// Timeout is the time for one change. Default `30s`.
	Timeout time.Duration `yaml:"timeout"`

	// Propagation is the time for a record to be seen. Default `2m`.
	Propagation time.Duration `yaml:"propagation"`

	// Resolvers are DNS servers, as in `192.0.2.53:53`, that find the zone and tell when a record is seen. Default: the system's
	// find the zone, and the zone's own tell.
	Resolvers []string `yaml:"resolvers"`
}

// BindingConfig is an account that an authority knows us by.
type BindingConfig struct {
	// ID is the key's id, as the authority gave it. Required.
	ID string `yaml:"id"`

	// KeyFile is a file with the key, in base64url, as the authority gave it. Required.
	KeyFile string `yaml:"key_file"`
}

// ProxyProtocolConfig lists load balancers.
type ProxyProtocolConfig struct {
	// From are the load balancers' networks, as in `10.0.0.0/8`.
	From []netip.Prefix `yaml:"from"`
}

// AdminConfig is the operators' listener.
type AdminConfig struct {
	// Address is host and port. Default `127.0.0.1:8445`. Anywhere but on loopback it needs TLS with a client CA, or a
	// bearer. A change needs a restart.
	Address string `yaml:"address"`

	// TLS, if set, serves HTTPS. Whether it is there at all takes a restart; what is in it follows a reload.
	TLS AdminTLSConfig `yaml:"tls"`

	// BearerFile is a file with a token that every request must carry as `Authorization: Bearer`.
	BearerFile string `yaml:"bearer_file"`
}

// AdminTLSConfig is the operators' listener's side of TLS.
type AdminTLSConfig struct {
	// Certificate is a PEM file with the server's certificate and its chain.
	Certificate string `yaml:"certificate"`

	// Key is a PEM file with the certificate's private key.
	Key string `yaml:"key"`

	// ClientCA is a PEM file with the authorities of operators' certificates. Where it is set, every connection needs one.
	ClientCA string `yaml:"client_ca"`
}

// StoreConfig is what instances must agree on. One of Redis and Memory.
type StoreConfig struct {
	// Redis is shared by all instances.
	Redis *RedisConfig `yaml:"redis"`

	// Memory is the embedded default, for one instance. A restart forgets all tokens: they are refused.
	Memory *MemoryConfig `yaml:"memory"`
}

// RedisConfig is Redis, version 7 or later: one server, one that Sentinels watch, or a Cluster. It must have
// `maxmemory-policy noeviction`.
type RedisConfig struct {
	// Addresses is that of the server, as `host:port`; with `sentinel` those of the Sentinels; several without it are nodes of
	// a Cluster. Required.
	Addresses []string `yaml:"addresses"`

	// Sentinel, if set, has Sentinels say which server is the primary.
	Sentinel *SentinelConfig `yaml:"sentinel"`

	// DB is the number of the database. Cluster has 0 only. Default `0`.
	DB int `yaml:"db"`

	// Fence is what keeps a token that a failover brought back from being redeemed again: `tenure` (the server's replication
	// id, which scripts read by `INFO`) or, where they cannot, `quorum` (replicas acknowledge every write before it counts).
	// Tokens of one are refused under the other. See docs/single-use.md. Default `tenure`.
	Fence string `yaml:"fence"`

	// Quorum is for `fence: quorum`.
	Quorum QuorumConfig `yaml:"quorum"`

	// Username is the ACL user's. Default: Redis' default user.
	Username string `yaml:"username"`

	// PasswordFile is a file with the password. It is read again for each connection, so that it can be rotated.
	PasswordFile string `yaml:"password_file"`

	// TLS, if set, encrypts the connections. A change needs a restart, of what is in its files too.
	TLS *ClientTLSConfig `yaml:"tls"`

	// Prefix is what every key in Redis begins with. Default `cardstile`.
	Prefix string `yaml:"prefix"`

	// PoolSize is the number of connections. Default: ten for each processor, at least 16.
	PoolSize int `yaml:"pool_size"`

	// Timeout is the time for one command. Default `1s`.
	Timeout time.Duration `yaml:"timeout"`

	// DialTimeout is the time for a new connection. Default `2s`.
	DialTimeout time.Duration `yaml:"dial_timeout"`
}

// SentinelConfig says how Sentinels are asked.
type SentinelConfig struct {
	// Master is the name under which they know the primary. Required.
	Master string `yaml:"master"`

	// Username is the Sentinels' ACL user. Default: their default user.
	Username string `yaml:"username"`

	// PasswordFile is a file with the Sentinels' password, which is not the servers'.
	PasswordFile string `yaml:"password_file"`
}

// QuorumConfig says who must acknowledge a write.
type QuorumConfig struct {
	// Replicas is how many must, so that a token is minted or redeemed: as many as may be promoted, for certainty. Required
	// with `fence: quorum`.
	Replicas int `yaml:"replicas"`

	// Timeout is how long they have, less than `timeout`. What comes later fails closed. Default `500ms`.
	Timeout time.Duration `yaml:"timeout"`
}

// ClientTLSConfig is our side of TLS where we are the client.
type ClientTLSConfig struct {
	// CA is a PEM file with the authorities that the server's certificate must come from. Default: the system's.
	CA string `yaml:"ca"`

	// ServerName is the name in the server's certificate. Default: the host that is dialled.
	ServerName string `yaml:"server_name"`

	// Certificate is a PEM file with our client certificate.
	Certificate string `yaml:"certificate"`

	// Key is a PEM file with its private key.
	Key string `yaml:"key"`
}

// MemoryConfig is the embedded store.
type MemoryConfig struct {
	// MaxEntries is how many tokens and records fit. Beyond, mints are refused. Default `1048576`.
	MaxEntries int `yaml:"max_entries"`

	// LoginsFile is a file with cookie values, one a line, whose users are logged in for 24 hours from the start: for demos and
	// tests. Refused in production. A change needs a restart.
	LoginsFile string `yaml:"logins_file"`
}

// KeyConfig is one key of ours. `cardstile keys generate` makes its file.
type KeyConfig struct {
	// ID is the key's name: letters, digits, `.`, `_` and `-`.
	ID string `yaml:"id"`

	// Use is `session` (opens clients' session ids), `storage` (seals what the store keeps), `digest` (digests of
	// tokens), `cookie` (signs cookies), `jwt` (signs access tokens), `audit` (chains audit records) or `issuer`.
	Use string `yaml:"use"`

	// Kind is `pem` (a plain file), `age` (sealed with a passphrase), or `sealed` (the same by what FIPS 140-3 approves). Default `pem`.
	Kind string `yaml:"kind"`

	// File is the key's. Required.
	File string `yaml:"file"`

	// PassphraseFile is a file with the passphrase of the kinds `age` and `sealed`, for example a systemd credential.
	PassphraseFile string `yaml:"passphrase_file"`

	// Environment overrides the configuration's.
	Environment string `yaml:"environment"`
}

// PartnerConfig is an organisation that calls us.
type PartnerConfig struct {
	// ID is the partner's name in policies, logs and the holder directory.
	ID string `yaml:"id"`

	// Disabled is the partner's switch: its open connections stop with the reload, and what was minted for it is dead. Where
	// instances share a store, `cardstile partner disable` switches it off on all of them within a second.
	Disabled bool `yaml:"disabled"`

	// Environment overrides the configuration's.
	Environment string `yaml:"environment"`

	// Certificate is what its client certificates look like.
	Certificate *PartnerCertificateConfig `yaml:"certificate"`

	// Rate overrides `limits.partner`, as in `600/m`.
	Rate policy.Rate `yaml:"rate"`

	// Concurrent overrides `limits.concurrent_per_partner`.
	Concurrent int `yaml:"concurrent"`

	// Issuers are our credentials with issuers when we act for this partner, by issuer.
	Issuers map[string]PartnerIssuerConfig `yaml:"issuers"`

	// Accounts are its service accounts, for faces whose callers log in with a key pair: `paymentsgate`.
	Accounts []AccountConfig `yaml:"accounts"`

	// Terminals are its processing terminals, for face `payroc`: 1 to 50 letters, digits and `-`.
	Terminals []string `yaml:"terminals"`
}

// AccountConfig is a partner's service account.
type AccountConfig struct {
	// ID is what callers name it by: a UUID in lower case.
	ID string `yaml:"id"`

	// PublicKeys are PEM files of its RSA keys, at least 2048 bits: several, while one replaces another.
	// Taking one out ends, with the reload, every login that began with it; putting it back
	// brings back those that have not run out. Required.
	PublicKeys []string `yaml:"public_keys"`

	// Login is what a login must show: `signature` (over the request), `private_key_jwt` (an assertion), `certificate` (the
	// partner's, on a listener that requires one), or `public_key`: what published clients do, and what anybody can who has
	// seen the key. Policies are told that it is of low assurance. Default `signature`.
	Login string `yaml:"login"`

	// Requests is whether forwarded requests with a body must be signed: `off`, `optional` (a signature that is there must be
	// good) or `required`. Default `off`.
	Requests string `yaml:"requests"`

	// Environment overrides the configuration's.
	Environment string `yaml:"environment"`

	// Issuers are our credentials with issuers when we act for this account, by issuer; without one, the partner's.
	Issuers map[string]PartnerIssuerConfig `yaml:"issuers"`
}

// PartnerCertificateConfig is what a partner's client certificates look like.
type PartnerCertificateConfig struct {
	// Subject is the distinguished name, as in `CN=gp_f1a9b6c741c94510bb3b27f2e8379e29,C=US`. The order of its
	// attributes does not matter; nothing may be missing or added.
	Subject string `yaml:"subject"`

	// CA is a PEM file with the authority that must have issued them. Default: that of the listeners, if they trust but one.
	CA string `yaml:"ca"`

	// Pins are SHA-256 digests, in hex, of the public keys that are accepted. Default: any.
	Pins []string `yaml:"pins"`
}

// PartnerIssuerConfig is a partner's account with an issuer.
type PartnerIssuerConfig struct {
	// APIKeyFile is a file with the API key that is used instead of the issuer's own.
	APIKeyFile string `yaml:"api_key_file"`
}

// IssuerConfig is a card issuer behind us.
type IssuerConfig struct {
	// Kind is the issuer's API: `rain`, `gnosispay` (cards that users bring), `bridge`, `payroc`, or `forward` (any JSON API, for the calls
	// that a route forwards).
	Kind string `yaml:"kind"`

	// Leg is `clear` for an API that has card data in clear inside TLS, which `bridge` and `forward` have: it must be said.
	Leg string `yaml:"leg"`

	// URL is the API's base, HTTPS. Plain HTTP is accepted to loopback in `test`.
	URL string `yaml:"url"`

	// CA is a PEM file with the authorities that the issuer's certificate must come from. Default: the system's.
	CA string `yaml:"ca"`

	// Pins are SHA-256 digests, in hex, of the public keys that the issuer's certificate may have, besides all other checks. Default: any.
	Pins []string `yaml:"pins"`

	// Destinations are the networks that connections to the issuer may go to, checked with each connection's address after its name
	// was resolved. An address that is not public (private, loopback, link-local, …) must be listed by its own block or a part of
	// it: `0.0.0.0/0` is none. Default: public addresses, an address that the URL itself names, and in `test` loopback.
	Destinations []netip.Prefix `yaml:"destinations"`

	// Certificate is a PEM file with our client certificate.
	Certificate string `yaml:"certificate"`

	// Key is a PEM file with its private key.
	Key string `yaml:"key"`

	// APIKeyFile is a file with our API key. Required.
	APIKeyFile string `yaml:"api_key_file"`

	// PublicKey is a PEM file with the RSA key that sessions with the issuer are made with. Required, but for a leg in clear.
	PublicKey string `yaml:"public_key"`

	// Timeout is the time for one request. Default `10s`.
	Timeout time.Duration `yaml:"timeout"`

	// Concurrent overrides `limits.concurrent_per_issuer`.
	Concurrent int `yaml:"concurrent"`

	// Environment overrides the configuration's.
	Environment string `yaml:"environment"`

	// SharedCredential allows several partners, or several service accounts, to act under one API key. To the issuer they
	// are one then: an `Idempotency-Key` goes to it as a UUID made of the caller's and of who they are.
	SharedCredential bool `yaml:"shared_credential"`

	// Legacy lists, by name, what is below today's standard and the issuer needs: `rsa-1024`.
	Legacy []string `yaml:"legacy"`
}

// RouteConfig puts a face on a listener and an issuer behind it.
type RouteConfig struct {
	// Listener is a name under `listeners`. Required.
	Listener string `yaml:"listener"`

	// Face is the API that is presented: `gnosispay`, `exa`, `bridge`, `paymentsgate` or `payroc`. Required.
	Face string `yaml:"face"`

	// Issuer is a name under `issuers`. Required.
	Issuer string `yaml:"issuer"`

	// Hosts are the names that the route answers for, as in `[api.example.com, "*.cards.example.com"]`; `*.` stands for one label,
	// and a route that names a host comes before one that names it by a wildcard. Default: every name that no other route has the
	// path for. Only a route without hosts can be called by address. Whatever it names, a request whose host is not that of its
	// connection (SNI) is answered 421.
	Hosts []string `yaml:"hosts"`

	// ClientCert tells the issuer the caller's certificate, where one was verified: `leaf` (`Client-Cert`, RFC 9440) or `chain`
	// (`Client-Cert-Chain` too, without the root). Left out: not at all. Whatever callers send in such fields is dropped.
	ClientCert string `yaml:"client_cert"`

	// Operations are those of the face that this route offers, such as `token.mint`, `card.reveal`, `card.profile`,
	// `pin.reveal`, `pin.set`. Default: all that the listener and the other keys allow.
	Operations []string `yaml:"operations"`

	// SessionKey is the id of the key, of use `session`, that opens the callers' session ids.
	SessionKey string `yaml:"session_key"`

	// PreviousSessionKey is the id of a key that is accepted as well, during a rotation.
	PreviousSessionKey string `yaml:"previous_session_key"`

	// Partner is the partner of a face whose callers do not show which partner they belong to. Required for `exa`.
	Partner string `yaml:"partner"`

	// ClientLeg is `clear` for a face whose callers get or send card data in clear inside TLS, which those of `bridge` and `payroc`
	// do: it must be said, or the route shows and takes no card.
	ClientLeg string `yaml:"client_leg"`

	// Origins are the browser origins whose pages may call, exactly as browsers send them: `https://app.example`.
	Origins []string `yaml:"origins"`

	// WrongProof is what a wrong proof beside a single-use key of `bridge` does to the key: `burn`, or `keep`. A route that mints
	// and one that reveals must say the same. Default `burn`.
	WrongProof string `yaml:"wrong_proof"`

	// Domain is the one that users sign for, as in `web.example`: of wallets' messages and of passkeys. With it, `exa` offers
	// logins and challenges.
	Domain string `yaml:"domain"`

	// ChainID is the chain of wallets' messages (EIP-155). Default `10`.
	ChainID int `yaml:"chain_id"`

	// JWTKey is the id of the key, of use `jwt`, that signs access tokens. Required for `paymentsgate` and `payroc`; with it, `exa`
	// accepts tokens of wallet extensions.
	JWTKey string `yaml:"jwt_key"`

	// PreviousJWTKey is the id of a key whose tokens are accepted as well, during a rotation. It stays in the JWKS.
	PreviousJWTKey string `yaml:"previous_jwt_key"`

	// JWTIssuer is the `iss` of access tokens. Default `cardstile`.
	JWTIssuer string `yaml:"jwt_issuer"`

	// JWTAudience is the `aud` of access tokens. Default: the issuer's name.
	JWTAudience string `yaml:"jwt_audience"`

	// TokenURL lists what may stand as `aud` in the assertions of service accounts: the URL of `/auth/token` as they see it.
	TokenURL []string `yaml:"token_url"`

	// UserTokens are tokens that show who a user of `gnosispay` is, and that somebody else signs.
	UserTokens *UserTokensConfig `yaml:"user_tokens"`

	// TypedData is what wallets of `gnosispay` users sign for each action (EIP-712). It needs `user_tokens`.
	TypedData *TypedDataConfig `yaml:"typed_data"`

	// Apps are the pages of partners that embed elements of `gnosispay`: what shows a card and sets a PIN in a cardholder's
	// browser.
	Apps []AppConfig `yaml:"apps"`

	// HostedFields is how the hosted fields of `payroc` are. Left out: the route has none.
	HostedFields *HostedFieldsConfig `yaml:"hosted_fields"`

	// Forward are the calls of the issuer's API that the route carries, for faces with forward routes. What is not listed is
	// not there.
	Forward []ForwardConfig `yaml:"forward"`

	// CookieKey is the id of the key, of use `cookie`, that signs users' cookies. Required for `exa`.
	CookieKey string `yaml:"cookie_key"`

	// PreviousCookieKey is the id of a key that is accepted as well, during a rotation.
	PreviousCookieKey string `yaml:"previous_cookie_key"`

	// StatelessCookies accepts signed cookies without a login record: for compatibility. They cannot be revoked, and
	// never expire.
	StatelessCookies bool `yaml:"stateless_cookies"`

	// UnboundTokens is what a token opens that was minted without naming operation and card: `with_user_proof` (a
	// card together with a proof of its user), `with_user_signature` (together with their wallet's signature for that card and
	// operation, which needs `typed_data`), `refuse` (nothing), or `allow` (any card of its partner: for
	// compatibility). Default `with_user_proof`.
	UnboundTokens string `yaml:"unbound_tokens"`

	// PIN is how PIN operations are carried: `blind` (the client encrypts to the issuer's key) or `software` (the vault
	// opens the PIN block in memory). Left out: not at all.
	PIN string `yaml:"pin"`

	// PINWithPAN allows a PIN beside a card number in one answer.
	PINWithPAN bool `yaml:"pin_with_pan"`

	// Legacy lists, by name, what is below today's standard and the face's clients need: `oaep-sha1`.
	Legacy []string `yaml:"legacy"`

	// Environment overrides the configuration's.
	Environment string `yaml:"environment"`
}

// UserTokensConfig is whose word on users a route takes.
type UserTokensConfig struct {
	// JWKS is a file with the public keys that tokens are signed with (RFC 7517): `ES256`, `RS256`, `PS256` or `EdDSA`. Required.
	JWKS string `yaml:"jwks"`

	// Issuer is their `iss`. Required.
	Issuer string `yaml:"issuer"`

	// Audience is their `aud`. Required.
	Audience string `yaml:"audience"`
}

// TypedDataConfig is the domain of what wallets sign (EIP-712).
type TypedDataConfig struct {
	// Name is what wallets show of who asks: the operator's own, so that what is signed for one deployment is good at no other.
	// Required.
	Name string `yaml:"name"`

	// Version is the domain's. Default `1`.
	Version string `yaml:"version"`

	// ChainID is the chain's number (EIP-155). Default `100`.
	ChainID int `yaml:"chain_id"`
}

// AppConfig is a page of a partner that embeds elements.
type AppConfig struct {
	// ID is the `appId`: 1 to 64 letters, digits, `.`, `_` and `-`. Required.
	ID string `yaml:"id"`

	// Partner is whose page it is: tokens of others are refused there. Required.
	Partner string `yaml:"partner"`

	// Origins are the origins of the pages that may embed, exactly as browsers have them. Required.
	Origins []string `yaml:"origins"`

	// Show is how long a card or a PIN stays on the screen: `5s` to `5m`. Default `1m`.
	Show time.Duration `yaml:"show"`

	// PINDigits is how many digits a PIN has that is set there: 4 to 12. Default `4`.
	PINDigits int `yaml:"pin_digits"`

	// Page is how its pages look.
	Page PageConfig `yaml:"page"`
}

// PageConfig is how our pages look.
type PageConfig struct {
	// Theme sets the colours and measures of our pages, by name, as in `{accent: "#0b57d0", radius: 8px}`.
	Theme map[string]string `yaml:"theme"`

	// CSS is further style, by documented selector and property, as in `{.pse-card-value: {font-size: 20px}}`. Both are from a
	// list.
	CSS map[string]map[string]string `yaml:"css"`

	// Locale is the language: `en`, `de`, `es`, `fr`, `it` or `pt`. Default: the browser's, else `en`.
	Locale string `yaml:"locale"`

	// SameOrigin has pages of our own origin embed them, which can read all that is shown and typed there: for demonstrations.
	SameOrigin bool `yaml:"same_origin"`
}

// HostedFieldsConfig is how hosted fields are.
type HostedFieldsConfig struct {
	// Libraries are the versions of the page's library that sessions may name, as in `1.7.0.261457`. Required.
	Libraries []string `yaml:"libraries"`

	// CVV is whether a card needs its security code: `mandatory`, `enabled` or `disabled`. Default `mandatory`.
	CVV string `yaml:"cvv"`

	// CardholderName is whether a card needs its holder's name.
	CardholderName bool `yaml:"cardholder_name"`

	// ExpiredCards takes cards that have expired.
	ExpiredCards bool `yaml:"expired_cards"`

	// Tokenization allows sessions of scenario `tokenization`.
	Tokenization bool `yaml:"tokenization"`

	// Script is the vendor's script, which field pages load in place of ours: its URL, which is HTTPS.
	Script string `yaml:"script"`

	// Integrity is its digest, as in `sha384-…` (Subresource Integrity). Required with `script`.
	Integrity string `yaml:"integrity"`

	// Page is how its pages look.
	Page PageConfig `yaml:"page"`
}

// ForwardConfig is one call that a route carries to its issuer as it is, but for declared fields.
type ForwardConfig struct {
	// Method is `GET`, `POST`, `PUT`, `PATCH` or `DELETE`. All but `GET` are taken to change something.
	Method string `yaml:"method"`

	// Path is exact, with wildcards for whole segments, as in `/deals/{id}/credentials`. It is the same at the issuer, below
	// its URL.
	Path string `yaml:"path"`

	// Bind names wildcards that must be the caller's own: `account` or `partner`, as in `{owner: account}`.
	Bind map[string]string `yaml:"bind"`

	// Fields are the members of the answer that hold a sensitive field, by JSON pointer: `{/account_number: account}`. Fields
	// are `pan`, `cvc` and `account`. They are encrypted for the caller's session. A card number anywhere else is not
	// released at all.
	Fields map[string]string `yaml:"fields"`

	// Submit are the members of the request that hold one, as `{"data","iv"}` under the caller's session. The issuer gets
	// them as its leg has them.
	Submit map[string]string `yaml:"submit"`

	// CardToken is the member of the request that names a card of hosted fields, as `{"type":"singleUseToken","token"}`, by JSON
	// pointer. The token is used up, and the card goes to the issuer in its place. For face `payroc`.
	CardToken string `yaml:"card_token"`

	// Terminal is the member of the request that names a processing terminal, by JSON pointer: it must be one of the partner's,
	// and be there where the issuer's entry says `shared_credential`. For face `payroc`.
	Terminal string `yaml:"terminal"`

	// WithoutSession is what becomes of `fields` where the caller brought no session: `mask`, `refuse` (before anything is
	// sent), or `clear`. Default `mask`.
	WithoutSession string `yaml:"without_session"`
}

// LimitsConfig bounds what callers can take.
type LimitsConfig struct {
	// Partner is the rate of each partner's permitted exchanges, as in `600/m`. Default: none.
	Partner policy.Rate `yaml:"partner"`

	// Card is the rate of permitted exchanges on each card. Default: none.
	Card policy.Rate `yaml:"card"`

	// Credential is the rate of each credential that can be shown again (certificate, API key, access token, cookie), counted
	// before anything is spent. Default: none.
	Credential policy.Rate `yaml:"credential"`

	// Anonymous is the rate of exchanges that show no credential and that a policy permits (a login's challenge), for each
	// address (of IPv6, each /64), on all instances. Default `120/m`.
	Anonymous policy.Rate `yaml:"anonymous"`

	// Login is the rate at which each service account, or user, logs in. Two records are kept of a service account's login for
	// up to 90 days. Default `300/m`.
	Login policy.Rate `yaml:"login"`

	// Page is the rate of calls in one session of hosted fields: whoever sees the page has it. Default `60/m`.
	Page policy.Rate `yaml:"page"`

	// User is the rate of challenges for each user's wallet, and of cards that the user brings. Default `30/m`.
	User policy.Rate `yaml:"user"`

	// PINReveal is the rate at which the PIN of one card is shown. Default `120/h`.
	PINReveal policy.Rate `yaml:"pin_reveal"`

	// PINSet is the rate at which the PIN of one card is set. Default `60/h`.
	PINSet policy.Rate `yaml:"pin_set"`

	// Unproven is the rate of exchanges without an accepted credential, for each address (of IPv6, each /64) and process.
	// Default `6000/m`; beyond, 429, counted and not recorded. Behind a load balancer it needs `proxy_protocol`, or all
	// callers are one address.
	Unproven policy.Rate `yaml:"unproven"`

	// FailedOpens is the rate of session ids that do not open, for each partner, user and card. Default `60/m`.
	FailedOpens policy.Rate `yaml:"failed_opens"`

	// HeaderBytes is the most that a request's header may have. Default `16384`; beyond, 431. HTTP/1.1 is let have
	// 4096 bytes more, and HTTP/2, which counts 32 on top of each field, 320. A change needs a restart.
	HeaderBytes int `yaml:"header_bytes"`

	// BodyBytes is the most that a request's body may have; an endpoint that needs less takes less (today's: 4096). Default
	// `65536`; beyond, 413.
	BodyBytes int `yaml:"body_bytes"`

	// AnswerBytes is the most that an issuer's answer may have. Default `262144`; beyond, the answer is refused.
	AnswerBytes int `yaml:"answer_bytes"`

	// Handshake is the time from a connection to its end of handshake. Default `5s`.
	Handshake time.Duration `yaml:"handshake"`

	// Read is the time for a whole request. Default `10s`. A change needs a restart.
	Read time.Duration `yaml:"read"`

	// Write is the time from a request's header to the end of its answer. Default `30s`. A change needs a restart.
	Write time.Duration `yaml:"write"`

	// Idle is the time between two requests of a connection. Default `90s`. A change needs a restart.
	Idle time.Duration `yaml:"idle"`

	// Exchange is the time for all stages of one exchange. Default `15s`.
	Exchange time.Duration `yaml:"exchange"`

	// Connections is how many a listener has open at once. Default `10000`; beyond, new ones wait. A change needs a restart.
	Connections int `yaml:"connections"`

	// Concurrent is how many exchanges are in flight at once. Default `1024`; beyond, 503, and nothing is spent.
	Concurrent int `yaml:"concurrent"`

	// ConcurrentPerIssuer is the same for each issuer, so that one that hangs stops no other. Default `512`.
	ConcurrentPerIssuer int `yaml:"concurrent_per_issuer"`

	// ConcurrentPerPartner is the same for each partner. Default `256`.
	ConcurrentPerPartner int `yaml:"concurrent_per_partner"`

	// RSA is how many session ids are opened at once. Default: one less than there are processors, at least one. A
	// change needs a restart.
	RSA int `yaml:"rsa"`
}

// AuditConfig is the record of what happened to cards.
type AuditConfig struct {
	// File is where each record becomes one JSON line, synced before the answer leaves. It is opened anew on SIGHUP. Required.
	File string `yaml:"file"`

	// Instance is this process' name in the records. Default: the host's name.
	Instance string `yaml:"instance"`
}

// LogConfig is the operators' log, on standard error.
type LogConfig struct {
	// Level is `debug`, `info`, `warn` or `error`. Default `info`.
	Level string `yaml:"level"`

	// Format is `json`, `console`, or `auto`: console on a terminal. Default `auto`.
	Format string `yaml:"format"`
}

// ShutdownConfig is how SIGTERM ends the process.
type ShutdownConfig struct {
	// Grace is how long `/readyz` says 503 before connections are refused, so that load balancers see it. Default `0s`.
	Grace time.Duration `yaml:"grace"`

	// Timeout is how long exchanges in flight may take to end. Default `20s`.
	Timeout time.Duration `yaml:"timeout"`
}
