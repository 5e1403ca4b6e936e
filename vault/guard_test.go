package vault_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/vault"
)

// luhn is the check digit of a number that lacks it, written another way than in the guard: with a table.
func luhn(digits string) byte {
	double := [10]int{0, 2, 4, 6, 8, 1, 3, 5, 7, 9}
	sum := 0
	for i := range len(digits) {
		v := int(digits[len(digits)-1-i] - '0')
		if i%2 == 0 {
			v = double[v]
		}
		sum += v
	}
	return byte('0' + (10-sum%10)%10)
}

func valid(digits string) bool { return luhn(digits[:len(digits)-1]) == digits[len(digits)-1] }

// randomPAN is a number of n digits that begins as those of a network do.
func randomPAN(r *rand.Rand, n int) string {
	beginnings := []string{"3", "4", "5", "6"}
	switch n {
	case 16:
		beginnings = append(beginnings, "2201", "2221", "2720", "2200", "2205", "8100", "8299", "8600", "9792", "9860")
	case 17, 18, 19:
		beginnings = append(beginnings, "8100", "8299")
	}
	s := beginnings[r.IntN(len(beginnings))] + numerals(r, n)
	return s[:n-1] + string(luhn(s[:n-1]))
}

func numerals(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('0' + r.IntN(10))
	}
	return string(b)
}

// spell writes a number in the form that kind names, one of those that Guard documents; ok is false where it has none.
func spell(pan string, kind uint) (text string, ok bool) {
	layouts := map[int][][]int{
		13: {{4, 4, 4, 1}}, 14: {{4, 4, 4, 2}, {4, 6, 4}}, 15: {{4, 4, 4, 3}, {4, 6, 5}}, 16: {{4, 4, 4, 4}}, 17: {{4, 4, 4, 4, 1}}, 18: {{4, 4, 4, 4, 2}}, 19: {{4, 4, 4, 4, 3}, {6, 13}},
	}
	take := func(n uint) uint { v := kind % n; kind /= n; return v }
	if of := layouts[len(pan)]; take(3) != 0 {
		layout := of[take(uint(len(of)))]
		var groups []string
		for _, n := range layout {
			groups, pan = append(groups, pan[:n]), pan[n:]
		}
		pan = strings.Join(groups, []string{" ", "-"}[take(2)])
	}
	digit := func(format string) string {
		var b strings.Builder
		for i := range len(pan) {
			if take := (i*7+int(kind))%3 != 0 || pan[i] == ' '; take {
				fmt.Fprintf(&b, format, pan[i])
			} else {
				b.WriteByte(pan[i])
			}
		}
		return b.String()
	}
	switch take(8) {
	case 0, 1:
		return pan, true
	case 2:
		return url.QueryEscape(pan), true
	case 3:
		return url.PathEscape(pan), true
	case 4:
		return digit("%%%02x"), true
	case 5:
		return digit(`\u%04X`), true
	case 6:
		return base64.StdEncoding.EncodeToString([]byte(`["",":"`[:take(8)] + pan + `"}`[:take(3)])), true
	default:
		return base64.RawURLEncoding.EncodeToString([]byte("\xff\xfe\x01\x80\xee\xff"[:take(7)] + pan + "\x00\xff\xfe"[:take(4)])), true
	}
}

func TestGuardFinds(t *testing.T) {
	for _, text := range []string{
		"4111111111111111", "5555555555554444", "378282246310005", "30569309025904", "4222222222222", "6011111111111117", "3530111333300000", "2223003122003222", "6200000000000000000",
		"4111 1111 1111 1111", "4111-1111-1111-1111", "4111-1111 1111-1111", "3782 822463 10005", "3056-930902-5904", "6200 0000 0000 0000 000", "620000 0000000000000", "4222 2222 2222 2",
		`{"pan":"4111111111111111"}`, `{"pan":4111111111111111}`, `[4111111111111111,1]`, `[-4111111111111111]`, `{"t":"Card 4111 1111 1111 1111 declined"}`, `{"t":"no 12 4111 1111 1111 1111 7"}`,
		"order-4111111111111111", "12-4111111111111111", "ord_4111111111111111", "card4111111111111111", "4111111111111111n", "Total 12.50 4111111111111111.", "4111111111111111.00", "4111111111111111/12/30", "a=1+4111111111111111",
		"https://x/?pan=4111111111111111&x=1", "https://x/?pan=4111%201111%201111%201111", "https://x/?pan=4111+1111+1111+1111", "https://x/?pan=%34111111111111111", "https://x/4111-1111-1111-1111", "x%2C4111111111111111", "x%2c4111111111111111%26",
		"100%4111111111111111", "100%378282246310005", "%3" + "378282246310005", `"\n4111111111111111"`, `"\f4111111111111111\b"`, `"\u00204111111111111111"`, `"\u0034111111111111111"`, `"4111\u00201111\u00201111\u00201111"`, `"\\u00 4111111111111111"`, `\u12"4111111111111111`,
		"NDExMTExMTExMTExMTExMQ==", "NDExMTExMTExMTExMTExMQ", "/files/NDExMTExMTExMTExMTExMQ", "eyJwYW4iOiI0MTExMTExMTExMTExMTExIn0=", "xNDExMTExMTExMTExMTExMQ", "xxNDExMTExMTExMTExMTExMQ", "xxxNDExMTExMTExMTExMTExMQ",
		"é4111111111111111é", "\xff4111111111111111\x00", "+4111111111111111", "\t4111111111111111\r\n", "CARD12 4111 1111 1111 1111", "GB29 NWBK 6016, 4111 1111 1111 1111", "GB29-4111-1111-1111-1111", "GB29  4111 1111 1111 1111", "GB29 NWBKX 4111 1111 1111 1111",
		"GB29" + strings.Repeat("X", 30) + "4111111111111111", "gb29nwbk4222222222222", "No.4111111111111111", "a+4222222222222", "decadexyz4111111111111111", "1.,4111111111111111", "+,4222222222222",
		base64.RawStdEncoding.EncodeToString([]byte("4111111111111111zzzz")), "4111 x 4111 1111 1111 1111", "x4 4111 1111 1111 1111",
		"1.x4111111111111111", "+x4222222222222", "1. 4111111111111111", "+ 4222222222222", "1.5 4111111111111111", "+1 4222222222222", "MTExMTEx NDExMTExMTExMTExMTExMQ",
		strings.Repeat("a", 256) + "AB12z4111111111111111", strings.Repeat("a", 255) + "AB12z4111111111111111",
		"1 1 1 1 1 1 1 1 1 1 1 4111 1111 1111 1111", "4444 4111 1111 1111 1111", "4111 1111 1111 1111 4444", "4111111111111111 4111111111111112", "20 4111111111111111",
	} {
		if !vault.HoldsPANString(text) || !vault.HoldsPAN([]byte(text)) {
			t.Errorf("not found: %s", text)
		}
		for cut := range len(text) { // in two pieces
			var g vault.Guard
			_, _ = g.Write([]byte(text[:cut]))
			_ = g.Found() // changes nothing
			_, _ = g.Write([]byte(text[cut:]))
			if found := g.Found(); !found || found != g.Found() {
				t.Errorf("not found when cut at %d: %s", cut, text)
			}
			if g.Reset(); g.Found() {
				t.Error("found after Reset")
			}
		}
	}
}

func TestGuardLeavesAlone(t *testing.T) {
	for _, text := range []string{
		"", "4", "4111111111111112", "411111111111", "41111111111111111111", "4111111111111111111111111111111111", "411111******1111", "4111-11", "0000000000000000", "1234567812345670", "7000000000000005",
		"a4111 1111 1111 1111", "x4111 1111 1111 1111", "4111 1111 1111 x 1111", "4111 1111 x1111 1111", "62 0000 0000000000000", "37 82 822463 10005", "4222 222222 222", "4111%-1111-1111-1111", `"\u0134111111111111111"`,
		strings.Repeat("0", 256) + "4111111111111111", strings.Repeat("0", 256) + "4111111111111111x", "4111 1111 1111 1111x",
		"4111  1111 1111 1111", "4111 - 1111 - 1111 - 1111", "41 11 11 11 11 11 11 11", "4111,1111,1111,1111", "411111111 1111111", "4111 111111111111", "411 1111 1111 1111",
		"123e4567-e89b-12d3-a456-426655440000", "a4111111111111111", "4111111111111111ab", "0x4111111111111111", "deadbeef4111111111111111", "f4111111111111111f",
		"0.4111111111111111", "-12.5555555555554444", `{"rate":1.4111111111111111}`, `[0.378282246310005]`,
		"+4222222222222", "+378282246310005", `"+49151123456780"`, "GB29NWBK4222222222222", "DE894111111111111111", "DE89 4111 1111 1111 1111", "GB29 NWBK 4222 2222 2222 2", "XX11 A B 4111 1111 1111 1111",
		"2024-11-05T12:34:56.123456789Z", "20241105123456", "20241105123456789", "1700000000000", "1700000000000000", "1700000000000000000", "2014 1111 1111 1111",
		"34313131313131313131313131313131", "NDExMTExMTExMTExMTExMg==", "%2B4222222222222", "4.111111111111111e15", "NDExMTEx MTExMTExMTExMQ",
	} {
		if vault.HoldsPANString(text) || vault.HoldsPAN([]byte(text)) {
			t.Errorf("found in: %s", text)
		}
	}
}

// corpus makes what answers of such systems are full of, and no card number. What it makes is the same in each run.
var corpus = []struct {
	name string
	most float64 // of 10,000; none where zero
	make func(r *rand.Rand) string
}{
	{"UUID v4", 0, func(r *rand.Rand) string { return uuid(r, 4) }},
	{"UUID v7", 0, func(r *rand.Rand) string {
		s := fmt.Sprintf("%012x", 1_700_000_000_000+r.Int64N(200_000_000_000))
		return s[:8] + "-" + s[8:] + "-7" + uuid(r, 4)[15:]
	}},
	{"UUID without dashes", 0, func(r *rand.Rand) string { return strings.ReplaceAll(uuid(r, 4), "-", "") }},
	{"RFC 3339", 0, func(r *rand.Rand) string { return moment(r).Format(time.RFC3339Nano) }},
	{"ISO 8601 basic", 0, func(r *rand.Rand) string { return strings.Replace(moment(r).Format("20060102150405.000"), ".", "", 1) }},
	{"Unix seconds", 0, func(r *rand.Rand) string { return strconv.FormatInt(moment(r).Unix(), 10) }},
	{"Unix milliseconds", 0, func(r *rand.Rand) string { return strconv.FormatInt(moment(r).UnixMilli(), 10) }},
	{"Unix microseconds", 0, func(r *rand.Rand) string { return strconv.FormatInt(moment(r).UnixMicro(), 10) }},
	{"Unix nanoseconds", 0, func(r *rand.Rand) string { return strconv.FormatInt(moment(r).UnixNano(), 10) }},
	{"snowflake of today", 0, func(r *rand.Rand) string {
		return strconv.FormatInt((moment(r).UnixMilli()-1288834974657)<<22|r.Int64N(1<<22), 10)
	}},
	{"ULID", 0, func(r *rand.Rand) string { return "01J" + letters(r, "0123456789ABCDEFGHJKMNPQRSTVWXYZ", 23) }},
	{"ObjectId", 0, func(r *rand.Rand) string { return fmt.Sprintf("%08x", moment(r).Unix()) + hexes(r, 16) }},
	{"SHA-256", 0, func(r *rand.Rand) string { return hexes(r, 64) }},
	{"git commit", 0, func(r *rand.Rand) string { return hexes(r, 40) }},
	{"span id", 1, func(r *rand.Rand) string { return hexes(r, 16) }},
	{"traceparent", 1, func(r *rand.Rand) string { return "00-" + hexes(r, 32) + "-" + hexes(r, 16) + "-01" }},
	{"Ethereum address", 0, func(r *rand.Rand) string { return "0x" + hexes(r, 40) }},
	{"nanoid", 0, func(r *rand.Rand) string {
		return letters(r, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-", 21)
	}},
	{"prefixed id", 0, func(r *rand.Rand) string { return "card_" + letters(r, "0123456789abcdefghijklmnopqrstuvwxyz", 24) }},
	{"token", 0, func(r *rand.Rand) string { return base64.RawURLEncoding.EncodeToString(random(r, 32)) }},
	{"sealed field", 0, func(r *rand.Rand) string {
		return `{"data":"` + base64.StdEncoding.EncodeToString(random(r, 32)) + `","iv":"` + base64.StdEncoding.EncodeToString(random(r, 16)) + `"}`
	}},
	{"JWT", 0, func(r *rand.Rand) string {
		claims := fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d,"jti":%q}`, uuid(r, 4), moment(r).Unix(), moment(r).Unix(), hexes(r, 32))
		return "eyJhbGciOiJFUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "." + base64.RawURLEncoding.EncodeToString(random(r, 64))
	}},
	{"float", 0, func(r *rand.Rand) string { return strconv.FormatFloat(r.Float64()*float64(r.IntN(1000)), 'g', -1, 64) }},
	{"coordinates", 0, func(r *rand.Rand) string {
		return fmt.Sprintf("[%.15f,%.15f]", r.Float64()*180-90, r.Float64()*360-180)
	}},
	{"amount", 0, func(r *rand.Rand) string { return strconv.Itoa(r.IntN(1_000_000_000)) + "." + numerals(r, 2) }},
	{"ETag", 0, func(r *rand.Rand) string { return `W/"` + hexes(r, 32) + `"` }},
	{"masked PAN", 0, func(r *rand.Rand) string { s := randomPAN(r, 16); return s[:6] + "******" + s[12:] }},
	{"IPv4 and port", 0, func(r *rand.Rand) string {
		return fmt.Sprintf("%d.%d.%d.%d:%d", r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(65536))
	}},
	{"IPv6", 0, func(r *rand.Rand) string {
		return regexp.MustCompile(`.{4}`).ReplaceAllString(hexes(r, 28), "$0:") + hexes(r, 4)
	}},
	{"E.164", 0, func(r *rand.Rand) string { return "+" + strconv.Itoa(1+r.IntN(9)) + numerals(r, 7+r.IntN(8)) }},
	{"telephone number", 0, func(r *rand.Rand) string { return "+1 " + numerals(r, 3) + "-" + numerals(r, 3) + "-" + numerals(r, 4) }},
	{"IBAN", 0, func(r *rand.Rand) string { return "DE" + numerals(r, 20) }},
	{"IBAN with a bank's letters", 0, func(r *rand.Rand) string { return "GB" + numerals(r, 2) + "NWBK" + numerals(r, 14) }},
	{"IBAN in groups", 0, func(r *rand.Rand) string {
		return regexp.MustCompile(`.{4}`).ReplaceAllString("GB"+numerals(r, 2)+"NWBK"+numerals(r, 14), "$0 ")
	}},
	{"German IBAN in groups", 0, func(r *rand.Rand) string {
		return regexp.MustCompile(`.{4}`).ReplaceAllString("DE"+numerals(r, 20), "$0 ")
	}},
	{"date range", 0, func(r *rand.Rand) string {
		return moment(r).Format("2006-01-02") + " " + moment(r).Format("2006-01-02 15:04:05")
	}},
	// What does look like a card number, one time in ten where the beginning is right: here is how often.
	{"decimal id of 16 digits", 550, func(r *rand.Rand) string {
		return "1" + numerals(r, 15) + "," + strconv.Itoa(1+r.IntN(9)) + numerals(r, 15)
	}},
	{"EAN-13 of any country", 450, func(r *rand.Rand) string { return numerals(r, 13) }},
}

func uuid(r *rand.Rand, version int) string {
	s := hexes(r, 32)
	return s[:8] + "-" + s[8:12] + "-" + strconv.Itoa(version) + s[13:16] + "-" + letters(r, "89ab", 1) + s[17:20] + "-" + s[20:]
}

func moment(r *rand.Rand) time.Time {
	return time.Unix(1_500_000_000+r.Int64N(400_000_000), r.Int64N(1e9)).UTC()
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.IntN(256))
	}
	return b
}

func hexes(r *rand.Rand, n int) string { return hex.EncodeToString(random(r, (n+1)/2))[:n] }

func letters(r *rand.Rand, of string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = of[r.IntN(len(of))]
	}
	return string(b)
}

// TestGuardCorpus measures false alarms: 20,000 of each kind, as a JSON string and bare.
func TestGuardCorpus(t *testing.T) {
	const each = 20_000
	for i, kind := range corpus {
		r, alarms := rand.New(rand.NewPCG(uint64(i), 16)), 0
		for range each {
			text := kind.make(r)
			if vault.HoldsPANString(`{"id":"` + text + `"}`) {
				alarms++
				if kind.most == 0 && alarms < 4 {
					t.Errorf("%s: %s", kind.name, text)
				}
			}
		}
		rate := float64(alarms) * 10_000 / each
		t.Logf("%-28s %6d of %d (%.1f in 10,000)", kind.name, alarms, each, rate)
		if rate > kind.most {
			t.Errorf("%s: %.1f in 10,000", kind.name, rate)
		}
	}
}

// TestGuardSpellings plants numbers of every length in every documented form, in every place of a text.
func TestGuardSpellings(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := 13; n <= 19; n++ {
		for kind := range uint(3 * 2 * 2 * 8 * 7 * 4) {
			pan := randomPAN(r, n)
			text, ok := spell(pan, kind)
			if !ok {
				continue
			}
			context := corpus[r.IntN(len(corpus)-2)].make(r)
			for _, whole := range []string{text, `{"a":"` + context + `","b":"` + text + `"}`, "\n" + text + "\n" + context} {
				if !vault.HoldsPANString(whole) {
					t.Fatalf("%s is not found in %s", pan, whole)
				}
			}
		}
	}
}

// TestGuardChecksTheCheckDigit: of the ten last digits one is found, in every form.
func TestGuardChecksTheCheckDigit(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for n := 13; n <= 19; n++ {
		for kind := range uint(200) {
			pan := randomPAN(r, n)
			for last := '0'; last <= '9'; last++ {
				number := pan[:n-1] + string(last)
				text, _ := spell(number, kind)
				if got := vault.HoldsPANString(text); got != valid(number) && !partly(number) {
					t.Fatalf("%s as %s: %t", number, text, got)
				}
			}
		}
	}
}

// partly reports whether a number in groups holds a shorter one: the first four groups, or those after the first.
func partly(number string) bool {
	return len(number) > 16 && (valid(number[:16]) || valid(number[4:])) || len(number) == 19 && valid(number[6:])
}

// anyLuhn is the slow and generous judge: whether any digits of the text, under any of the readings, with any single
// separators, have a valid check digit and a length of 13 to 19.
func anyLuhn(text string) bool {
	readings := []string{text}
	unescaped := escapes.ReplaceAllStringFunc(text, func(s string) string {
		v, err := strconv.ParseUint(strings.TrimLeft(s, `%\u`), 16, 16)
		if s[0] == '\\' && len(s) == 2 {
			return "\x00"
		}
		if err != nil || v > 0x7f {
			return "\x80"
		}
		return string(rune(v))
	})
	readings = append(readings, unescaped, strings.ReplaceAll(unescaped, "+", " "), strings.ReplaceAll(escapesNot(text), "+", " "))
	for _, word := range base64Words.FindAllString(text, -1) {
		word = strings.NewReplacer("-", "+", "_", "/").Replace(word)
		for from := range min(4, len(word)) {
			w := word[from:]
			if len(w)%4 == 1 {
				w = w[:len(w)-1]
			}
			if decoded, err := base64.RawStdEncoding.DecodeString(w); err == nil {
				readings = append(readings, string(decoded))
			}
		}
	}
	for _, reading := range readings {
		for i := range len(reading) {
			number, gap := "", false
			for _, c := range []byte(reading[i:]) {
				if c == ' ' || c == '-' {
					if gap {
						break
					}
					gap = true
					continue
				}
				if c < '0' || c > '9' || len(number) == 19 {
					break
				}
				gap = false
				if number += string(c); len(number) >= 13 && valid(number) {
					return true
				}
			}
		}
	}
	return false
}

var (
	escapes     = regexp.MustCompile(`\\u[0-9a-fA-F]{4}|%[0-9a-fA-F]{2}|\\[^u]`)
	percents    = regexp.MustCompile(`%[0-9a-fA-F]{2}`)
	base64Words = regexp.MustCompile(`[A-Za-z0-9+/_-]{16,}`)
)

// escapesNot leaves backslashes as they are.
func escapesNot(text string) string {
	return percents.ReplaceAllStringFunc(text, func(s string) string {
		v, _ := strconv.ParseUint(s[1:], 16, 8)
		return string([]byte{byte(v)})
	})
}

// FuzzGuard: a card number in any documented form is found, whatever stands around it and however it is cut; and what is
// found has, in some reading of the text, the right number of digits and a valid check digit.
func FuzzGuard(f *testing.F) {
	f.Add("", "", uint64(1), uint8(16), uint(0), uint16(3))
	f.Add(`{"x":"`, `"}`, uint64(2), uint8(19), uint(77), uint16(9))
	f.Add("100%3", "4111", uint64(3), uint8(13), uint(4), uint16(0))
	f.Add(`\u00`, `\`, uint64(4), uint8(15), uint(500), uint16(1))
	f.Add("4222222222222 DE89", "GB29 NWBK", uint64(5), uint8(14), uint(29), uint16(2))
	f.Fuzz(func(t *testing.T, before, after string, seed uint64, n uint8, kind uint, cut uint16) {
		if len(before)+len(after) > 2000 {
			return
		}
		for _, text := range []string{before, before + after} {
			if vault.HoldsPANString(text) && !anyLuhn(text) {
				t.Fatalf("no number in %q", text)
			}
		}
		pan := randomPAN(rand.New(rand.NewPCG(seed, 0)), 13+int(n)%7)
		planted, ok := spell(pan, kind)
		if !ok {
			return
		}
		text := before + "\n;" + planted + "\n" + after
		at := int(cut) % (len(text) + 1)
		var g vault.Guard
		_, _ = io.WriteString(&g, text[:at])
		_, _ = io.WriteString(&g, text[at:])
		if !g.Found() || !vault.HoldsPANString(text) || !vault.HoldsPAN([]byte(text)) {
			t.Fatalf("%s as %q is not found in %q cut at %d", pan, planted, text, at)
		}
		// A digit that breaks the check digit, alone.
		wrong := pan[:len(pan)-1] + string('0'+(pan[len(pan)-1]-'0'+1+byte(seed%9))%10)
		if bare, _ := spell(wrong, kind); vault.HoldsPANString(bare) && !partly(wrong) {
			t.Fatalf("%s as %q is found", wrong, bare)
		}
	})
}

func TestGuardAllocatesNothing(t *testing.T) {
	text := []byte(`{"x":"\u0034%34+` + strings.Repeat("abcd1234", 50) + `","pan":"4111 1111 1111 1112"}`)
	s := string(text)
	if n := testing.AllocsPerRun(100, func() {
		var g vault.Guard
		_, _ = g.Write(text)
		if vault.HoldsPAN(text) || vault.HoldsPANString(s) || g.Found() {
			t.Error("found")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkGuard is once per answer, error and header value.
func BenchmarkGuard(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	var items []string
	for len(items) < 40 {
		items = append(items, fmt.Sprintf(`{"id":%q,"created":%q,"amount":%d.%s,"status":"done","name":"A. Cardholder","token":%q}`,
			uuid(r, 4), moment(r).Format(time.RFC3339), r.IntN(1000), numerals(r, 2), base64.RawURLEncoding.EncodeToString(random(r, 24))))
	}
	list := "[" + strings.Join(items, ",") + "]"
	if !json.Valid([]byte(list)) {
		b.Fatal("no JSON")
	}
	for name, text := range map[string]string{
		"answer": `{"cardId":"123e4567-e89b-12d3-a456-426655440000","encryptedPan":{"data":"jU4N3mQL8S3dzwZvTBLumI9YzpnpNOHDCHb5mV+hgok=","iv":"AAECAwQFBgcICQoLDA0ODw=="},"lastFour":"1111"}`,
		"list":   list, "header": "https://app.example/cards?state=%7B%22a%22%3A1%7D", "digits": strings.Repeat("4111 ", 2000), "escapes": strings.Repeat(`\u0034%34`, 1000), "base64": strings.Repeat("NDEx", 3000),
	} {
		p := []byte(text)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				_ = vault.HoldsPAN(p)
			}
		})
	}
}
