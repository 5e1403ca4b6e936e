package credential

// Parts of the hash of typed data, and what is read back.
var (
	TypedStruct = typedStruct
	Keccak256   = keccak256
	ParseTyped  = parseTyped
)

// RecoverAddress shows who signed a hash.
var RecoverAddress = recoverAddress
