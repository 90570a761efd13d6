package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Token is a secret with the id by which people speak of it. Its text is
//
//	zy2.ID.SECRET        or, for enrolment by a server that speaks TLS,
//	zy2.ID.SECRET.PIN
//
// SECRET is 256 random bits, so that a plain SHA-256 of it can be kept in its place. ID is the beginning of that hash: whoever
// makes a secret knows its id, and a mistyped token is found before anybody is asked. PIN is the SHA-256 of the public key of the
// CA to trust, as in kubeadm's discovery hash.
type Token struct {
	ID     string
	Secret string
	Pin    string // hex; empty: the system's roots, or no TLS
}

// tokenForm begins the text of a token.
const tokenForm = "zy2"

// NewToken makes a token of a fresh secret.
func NewToken() Token {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	t := Token{Secret: base64.RawURLEncoding.EncodeToString(secret)}
	t.ID = idOf(t.Hash())
	return t
}

// String is the token itself: print it once, and never log it.
func (t Token) String() string {
	if t.Pin != "" {
		return strings.Join([]string{tokenForm, t.ID, t.Secret, t.Pin}, ".")
	}
	return strings.Join([]string{tokenForm, t.ID, t.Secret}, ".")
}

// Hash is what is kept of the token.
func (t Token) Hash() string {
	sum := sha256.Sum256([]byte(t.Secret))
	return hex.EncodeToString(sum[:])
}

// Matches compares with a hash that was kept, in constant time.
func (t Token) Matches(hash string) bool {
	return subtle.ConstantTimeCompare([]byte(t.Hash()), []byte(hash)) == 1
}

// ParseToken reads the text of a token. Its error wraps ErrToken or ErrOldToken, and repeats nothing of the text.
func ParseToken(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), ".")
	switch {
	case strings.HasPrefix(text, "zy1:"):
		return Token{}, ErrOldToken
	case parts[0] != tokenForm || len(parts) < 3 || len(parts) > 4:
		return Token{}, ErrToken
	}
	t := Token{ID: parts[1], Secret: parts[2]}
	if secret, err := base64.RawURLEncoding.Strict().DecodeString(t.Secret); err != nil || len(secret) != 32 || t.ID != idOf(t.Hash()) {
		return Token{}, fmt.Errorf("%w (its text is damaged: was all of it copied?)", ErrToken)
	}
	if len(parts) == 4 {
		t.Pin = parts[3]
		if pin, err := hex.DecodeString(t.Pin); err != nil || len(pin) != sha256.Size {
			return Token{}, fmt.Errorf("%w (the pin at its end is damaged: was all of it copied?)", ErrToken)
		}
	}
	return t, nil
}

// idOf is how a credential with this hash is spoken of.
func idOf(hash string) string { return hash[:min(16, len(hash))] }

// CredentialID is the id of whatever has this hash: 64 hex digits.
func CredentialID(hash string) string { return idOf(hash) }

// CertificateHash is the hash by which a certificate is kept: that of its public key.
func CertificateHash(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// WriteSecret writes a private file in one motion and syncs it and its folder: a crash leaves the whole file, or what
// was there before.
func WriteSecret(path string, content []byte) error {
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, ".secret-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(content)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// ReadToken reads the text of a token from its file; it refuses one that others can read. An empty path is no token.
func ReadToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("auth: token file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("auth: token file %s has mode %o: others can read it; chmod 600 it", path, info.Mode().Perm())
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("auth: token file: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}
