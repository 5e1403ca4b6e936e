package holder

import "github.com/cardstile/cardstile/policy"

// Contents shows a file's tables to its fuzz test.
func Contents(f *File) (map[string]*policy.Holding, map[string]*policy.User) { return f.cards, f.users }

// Parse is LoadFile without the disk.
var Parse = parse
