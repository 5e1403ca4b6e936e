package vault

import "github.com/cardstile/cardstile/vault/internal/secret"

// Network is what the beginning of a card number says of its card.
type Network struct {
	// Name is the payment network: one of those in brands, or empty where the number begins as none of them does.
	Name string

	// SecurityCode says whether its cards have a security code: false only of those that are known to have none.
	SecurityCode bool
}

// Network returns the network of a member that is declared to hold a card number in clear, and nothing else of it. It
// fails with [ErrMember] as [Body.Field] does, and with [ErrOpen] where the number is not whole: anything but 12 to 19
// digits, a wrong check digit (ISO/IEC 7812-1, annex B), or a length that the network's cards do not have.
//
// A caller who may ask about any number learns its check digit from the answers, which everybody can compute.
func (b *Body) Network(pointer string) (Network, error) {
	i := b.shape.index(pointer, useClear)
	if i < 0 || b.shape.members[i].field != FieldPAN {
		return Network{}, ErrMember
	}
	if _, err := b.Field(pointer); err != nil {
		return Network{}, err
	}
	number, err := b.secret(i)
	if err != nil {
		return Network{}, ErrOpen
	}
	defer number.Destroy()
	return networkOf(number)
}

// Network is the network of a card number that is held under a token, as [Body.Network] is of one that came. It fails with
// [ErrOpen], whatever is wrong.
func (h *Holder) Network(token string, held []byte) (Network, error) {
	number, err := h.open(token, FieldPAN.String(), held, maxHeldBytes)
	if err != nil {
		return Network{}, err
	}
	defer number.Destroy()
	return networkOf(number)
}

func networkOf(number *secret.Buffer) (Network, error) {
	text := number.Bytes()
	if check(FieldPAN, ToIssuer, number) != nil || !checkDigit(text) {
		return Network{}, ErrOpen
	}
	bin := 0
	for _, c := range text[:6] {
		bin = 10*bin + int(c-'0')
	}
	for _, w := range brands {
		if bin < w.low || bin > w.high {
			continue
		}
		if w.digits>>len(text)&1 == 0 {
			return Network{}, ErrOpen
		}
		return Network{Name: w.name, SecurityCode: !w.noCode}, nil
	}
	return Network{SecurityCode: true}, nil
}

// checkDigit reports whether the last of some digits is the check digit of those before it.
func checkDigit(digits []byte) bool {
	sum := 0
	for i, c := range digits {
		sum += weighed(int(c-'0'), len(digits)-i)
	}
	return sum%10 == 0
}

// weighed is what a digit adds to the sum that the check digit makes a multiple of ten. place counts from the check digit,
// which is 1, to the left.
func weighed(digit, place int) int {
	if place%2 == 0 {
		digit *= 2
		if digit > 9 {
			digit -= 9
		}
	}
	return digit
}

// The lengths that cards have, as bits.
const (
	digits13to19 = 1<<13 | 1<<16 | 1<<19
	digits12up   = 1<<12 | 1<<13 | 1<<14 | 1<<15 | digits16up
	digits14up   = 1<<14 | digits16up
	digits15     = 1 << 15
	digits16     = 1 << 16
	digits16up   = 1<<16 | 1<<17 | 1<<18 | 1<<19
)

// brands are the payment networks by what their numbers begin with: the first six digits, in order and apart. They lie
// within what the [Guard] looks for (see networks), which is another table because it also takes what is nobody's here:
// the range of a number is as its network publishes it, and where two share one, the network whose cards are more.
var brands = []struct {
	name      string
	low, high int
	digits    uint32
	noCode    bool
}{
	{"mir", 220000, 220499, digits16, false},
	{"mastercard", 222100, 272099, digits16, false},
	{"diners", 300000, 305999, digits14up, false},
	{"diners", 309500, 309599, digits14up, false},
	{"amex", 340000, 349999, digits15, false},
	{"jcb", 352800, 358999, digits16up, false},
	{"diners", 360000, 369999, digits14up, false},
	{"amex", 370000, 379999, digits15, false},
	{"diners", 380000, 399999, digits14up, false},
	{"visa", 400000, 499999, digits13to19, false},
	{"maestro", 501800, 501899, digits12up, false},
	{"maestro", 502000, 502099, digits12up, false},
	{"maestro", 503800, 503899, digits12up, false},
	{"rupay", 508500, 508999, digits16, false},
	{"mastercard", 510000, 559999, digits16, false},
	{"maestro", 589300, 589399, digits12up, false},
	{"discover", 601100, 601199, digits16up, false},
	{"rupay", 606985, 607984, digits16, false},
	{"rupay", 608001, 608500, digits16, false},
	{"unionpay", 620000, 629999, digits16up, false},
	{"maestro", 630400, 630499, digits12up, false},
	{"discover", 644000, 652149, digits16up, false},
	{"rupay", 652150, 653149, digits16, false},
	{"discover", 653150, 659999, digits16up, false},
	{"maestro", 675900, 675999, digits12up, false},
	{"maestro", 676100, 676399, digits12up, false},
	{"unionpay", 810000, 817199, digits16up, false},
	{"rupay", 817200, 829999, digits16, false},
	{"uzcard", 860000, 860099, digits16, true}, // Uzbekistan's own cards have none
	{"troy", 979200, 979299, digits16, false},
	{"humo", 986000, 986099, digits16, true},
}
