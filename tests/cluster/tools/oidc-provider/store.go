package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// pending is how long somebody may take to sign in.
const pending = 10 * time.Minute

type person struct {
	Password string   `json:"password"`
	Email    string   `json:"email"`
	Groups   []string `json:"groups"`
}

func readPeople(file string) (map[string]person, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var people map[string]person
	if err := json.Unmarshal(content, &people); err != nil {
		return nil, err
	}
	for name, who := range people {
		if name == "" || who.Password == "" || who.Email == "" {
			return nil, errors.New("everybody needs a name, a password and an email")
		}
	}
	return people, nil
}

// authRequest is one attempt to sign in; subject is empty until somebody has.
type authRequest struct {
	oidc.AuthRequest
	id      string
	subject string
	began   time.Time
	at      time.Time
}

var _ op.AuthRequest = (*authRequest)(nil)

func (r *authRequest) GetID() string          { return r.id }
func (r *authRequest) GetACR() string         { return "" }
func (r *authRequest) GetAMR() []string       { return []string{"pwd"} }
func (r *authRequest) GetAudience() []string  { return []string{r.ClientID} }
func (r *authRequest) GetAuthTime() time.Time { return r.at }
func (r *authRequest) GetClientID() string    { return r.ClientID }
func (r *authRequest) GetNonce() string       { return r.Nonce }
func (r *authRequest) GetScopes() []string    { return r.Scopes }
func (r *authRequest) GetSubject() string     { return r.subject }
func (r *authRequest) Done() bool             { return r.subject != "" }

func (r *authRequest) GetCodeChallenge() *oidc.CodeChallenge {
	return &oidc.CodeChallenge{Challenge: r.CodeChallenge, Method: r.CodeChallengeMethod}
}

// signingKey signs; verificationKey is its public half.
type signingKey struct {
	id  string
	key *ecdsa.PrivateKey
}

func (k *signingKey) ID() string                                  { return k.id }
func (k *signingKey) Key() any                                    { return k.key }
func (k *signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }

type verificationKey struct{ *signingKey }

func (k verificationKey) Key() any                           { return &k.key.PublicKey }
func (k verificationKey) Use() string                        { return oidc.KeyUseSignature }
func (k verificationKey) Algorithm() jose.SignatureAlgorithm { return jose.ES256 }

// store is everything that the provider knows.
type store struct {
	people map[string]person
	client *publicClient
	key    *signingKey

	lock     sync.Mutex
	requests map[string]authRequest // by id
	codes    map[string]string      // ids by code
}

var (
	_ op.Storage                   = (*store)(nil)
	_ op.CanSetUserinfoFromRequest = (*store)(nil)
)

var (
	errUnknown     = errors.New("unknown")
	errUnsupported = errors.New("not supported")
)

func newStore(people map[string]person, client *publicClient) (*store, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return &store{
		people:   people,
		client:   client,
		key:      &signingKey{id: rand.Text(), key: key},
		requests: map[string]authRequest{},
		codes:    map[string]string{},
	}, nil
}

// signIn marks a request as that person's, if the password is right.
func (s *store) signIn(id, name, password string) error {
	who, known := s.people[name]
	if subtle.ConstantTimeCompare([]byte(who.Password), []byte(password)) != 1 || !known {
		return errors.New("wrong name or password")
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	request, found := s.requests[id]
	if !found {
		return errUnknown
	}
	request.subject, request.at = name, time.Now()
	s.requests[id] = request
	return nil
}

func (s *store) CreateAuthRequest(_ context.Context, asked *oidc.AuthRequest, subject string) (op.AuthRequest, error) {
	if asked.CodeChallenge == "" || asked.CodeChallengeMethod != oidc.CodeChallengeMethodS256 {
		return nil, oidc.ErrInvalidRequest().WithDescription("PKCE with S256 is required")
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	now := time.Now()
	for id, request := range s.requests {
		if now.Sub(request.began) > pending {
			s.forget(id)
		}
	}
	request := authRequest{AuthRequest: *asked, id: rand.Text(), began: now}
	s.requests[request.id] = request
	return &request, nil
}

func (s *store) forget(id string) {
	delete(s.requests, id)
	for code, of := range s.codes {
		if of == id {
			delete(s.codes, code)
		}
	}
}

func (s *store) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	request, found := s.requests[id]
	if !found {
		return nil, errUnknown
	}
	return &request, nil
}

func (s *store) AuthRequestByCode(ctx context.Context, code string) (op.AuthRequest, error) {
	s.lock.Lock()
	id := s.codes[code]
	s.lock.Unlock()
	return s.AuthRequestByID(ctx, id)
}

func (s *store) SaveAuthCode(_ context.Context, id, code string) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.codes[code] = id
	return nil
}

func (s *store) DeleteAuthRequest(_ context.Context, id string) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.forget(id)
	return nil
}

func (s *store) CreateAccessToken(context.Context, op.TokenRequest) (string, time.Time, error) {
	return rand.Text(), time.Now().Add(s.client.lifetime), nil
}

func (s *store) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != s.client.id {
		return nil, errUnknown
	}
	return s.client, nil
}

func (s *store) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, request op.IDTokenRequest, scopes []string) error {
	who, known := s.people[request.GetSubject()]
	if !known {
		return errUnknown
	}
	for _, scope := range scopes {
		switch scope {
		case oidc.ScopeOpenID:
			info.Subject = request.GetSubject()
		case oidc.ScopeEmail:
			info.Email, info.EmailVerified = who.Email, true
		case oidc.ScopeProfile:
			info.PreferredUsername = request.GetSubject()
		case groupsScope:
			info.AppendClaims(groupsScope, who.Groups)
		}
	}
	return nil
}

func (s *store) SigningKey(context.Context) (op.SigningKey, error) { return s.key, nil }

func (s *store) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

func (s *store) KeySet(context.Context) ([]op.Key, error) {
	return []op.Key{verificationKey{s.key}}, nil
}

func (s *store) Health(context.Context) error { return nil }

// What follows is asked of every store and has no use here: there are no secrets, no refresh
// tokens, and nobody reads an access token.

func (s *store) AuthorizeClientIDSecret(context.Context, string, string) error { return errUnsupported }

func (s *store) CreateAccessAndRefreshTokens(context.Context, op.TokenRequest, string) (string, string, time.Time, error) {
	return "", "", time.Time{}, errUnsupported
}

func (s *store) TokenRequestByRefreshToken(context.Context, string) (op.RefreshTokenRequest, error) {
	return nil, errUnsupported
}

func (s *store) TerminateSession(context.Context, string, string) error { return nil }

func (s *store) RevokeToken(context.Context, string, string, string) *oidc.Error {
	return oidc.ErrInvalidRequest().WithDescription("tokens cannot be revoked here")
}

func (s *store) GetRefreshTokenInfo(context.Context, string, string) (string, string, error) {
	return "", "", op.ErrInvalidRefreshToken
}

func (s *store) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

func (s *store) SetUserinfoFromToken(context.Context, *oidc.UserInfo, string, string, string) error {
	return errUnsupported
}

func (s *store) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errUnsupported
}

func (s *store) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

func (s *store) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errUnsupported
}

func (s *store) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errUnsupported
}
