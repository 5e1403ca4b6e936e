package envelope

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func vectors(t *testing.T, name string, into any) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "wycheproof", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatal(err)
	}
}

// TestWycheproofOAEP runs every vector of RSA-2048 with SHA-1 and MGF1-SHA-1 through ParsePreamble and the RSA half of
// Unwrap. Our label is empty, so a vector with another one must fail. Through the whole of Unwrap all must fail, since
// no vector holds the text of a key.
func TestWycheproofOAEP(t *testing.T) {
	var file struct {
		TestGroups []struct {
			PrivateKeyPkcs8 hexBytes
			Tests           []struct {
				TcID           int
				Ct, Msg, Label hexBytes
				Result         string
				Comment        string
			}
		}
	}
	vectors(t, "rsa_oaep_2048_sha1_mgf1sha1_test.json", &file)
	var opened, refused, unparsed int
	for _, g := range file.TestGroups {
		any, err := x509.ParsePKCS8PrivateKey(g.PrivateKeyPkcs8)
		if err != nil {
			t.Fatal(err)
		}
		var d crypto.Decrypter = any.(*rsa.PrivateKey)
		size := any.(*rsa.PrivateKey).Size()
		for _, v := range g.Tests {
			preamble, err := Rain{}.ParsePreamble(base64.StdEncoding.EncodeToString(v.Ct), size)
			if err != nil {
				if err != ErrPreamble || v.Result == "valid" || len(v.Ct) > 0 && len(v.Ct) <= size {
					t.Errorf("%d: %v", v.TcID, err)
				}
				unparsed++
				continue
			}
			text, err := openOAEP(d, size, preamble)
			switch valid := v.Result == "valid" && len(v.Label) == 0; {
			case valid && (err != nil || !bytes.Equal(text.Bytes(), v.Msg)):
				t.Errorf("%d (%s): %v", v.TcID, v.Comment, err)
			case valid:
				opened++
			case err != ErrOpen:
				t.Errorf("%d (%s): %v, want ErrOpen", v.TcID, v.Comment, err)
			default:
				refused++
			}
			text.Destroy()
			if _, err := (Rain{}).Unwrap(d, size, preamble); err != ErrOpen {
				t.Errorf("%d through Unwrap: %v, want ErrOpen", v.TcID, err)
			}
		}
	}
	if opened != 10 || refused != 22 || unparsed != 4 {
		t.Errorf("%d vectors opened, %d refused, %d not parsed: want 10, 22 and 4, in all 36", opened, refused, unparsed)
	}
}

// TestWycheproofGCM runs every vector with a key of 128 bits through Open, and the valid ones through Seal. We take IVs of
// 12 and 16 bytes and no associated data: a vector with another IV or with data must be refused, valid or not.
func TestWycheproofGCM(t *testing.T) {
	var file struct {
		TestGroups []struct {
			IvSize, KeySize int
			Tests           []struct {
				TcID                       int
				Key, Iv, Aad, Msg, Ct, Tag hexBytes
				Result                     string
			}
		}
	}
	vectors(t, "aes_gcm_128_test.json", &file)
	opened, refused, foreign := map[int]int{}, map[int]int{}, 0
	for _, g := range file.TestGroups {
		for _, v := range g.Tests {
			key := secret.From(bytes.Clone(v.Key))
			c, err := Rain{}.NewCipher(key)
			key.Destroy()
			if err != nil {
				t.Fatalf("%d: %v", v.TcID, err)
			}
			data := base64.StdEncoding.EncodeToString(append(bytes.Clone(v.Ct), v.Tag...))
			iv := base64.StdEncoding.EncodeToString(v.Iv)
			got, err := c.Open(data, iv)
			ours := (len(v.Iv) == 12 || len(v.Iv) == 16) && len(v.Aad) == 0
			if !ours || v.Result != "valid" {
				if got != nil || !errors.Is(err, ErrOpen) || err != ErrOpen {
					t.Errorf("%d: %v, %v: want ErrOpen", v.TcID, got, err)
				}
				if ours {
					refused[len(v.Iv)]++
				} else {
					foreign++
				}
				continue
			}
			if err != nil || !bytes.Equal(got.Bytes(), v.Msg) {
				t.Errorf("%d: %v", v.TcID, err)
				continue
			}
			opened[len(v.Iv)]++
			sealed, ivText := c.(*rainCipher).sealWith(new(scratch), v.Iv, got)
			if sealed != data || ivText != iv {
				t.Errorf("%d: sealed to %s, want %s", v.TcID, sealed, data)
			}
			got.Destroy()
		}
	}
	if opened[12] != 22 || refused[12] != 27 || opened[16] != 19 || foreign != 40 {
		t.Errorf("12-byte IVs: %d opened, %d refused; 16-byte IVs: %d opened; %d foreign: want 22, 27, 19 and 40, in all 108",
			opened[12], refused[12], opened[16], foreign)
	}
}
