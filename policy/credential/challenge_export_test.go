package credential

// EncodeChallenge and DecodeChallenge are what is sealed.
var (
	EncodeChallenge = (*Challenge).encode
	DecodeChallenge = decodeChallenge
)
