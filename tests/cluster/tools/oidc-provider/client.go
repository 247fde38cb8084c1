package main

import (
	"net/url"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// publicClient has no secret: it proves by PKCE that the code is its own.
type publicClient struct {
	id        string
	redirects []string
	lifetime  time.Duration
}

var _ op.Client = (*publicClient)(nil)

func (c *publicClient) GetID() string                        { return c.id }
func (c *publicClient) RedirectURIs() []string               { return c.redirects }
func (c *publicClient) PostLogoutRedirectURIs() []string     { return nil }
func (c *publicClient) AuthMethod() oidc.AuthMethod          { return oidc.AuthMethodNone }
func (c *publicClient) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeBearer }
func (c *publicClient) IDTokenLifetime() time.Duration       { return c.lifetime }
func (c *publicClient) ClockSkew() time.Duration             { return 0 }
func (c *publicClient) DevMode() bool                        { return false }
func (c *publicClient) IDTokenUserinfoClaimsAssertion() bool { return true }
func (c *publicClient) IsScopeAllowed(scope string) bool     { return slices.Contains(scopes, scope) }

// ApplicationType is native, because that is the kind whose loopback addresses may have any port.
func (c *publicClient) ApplicationType() op.ApplicationType { return op.ApplicationTypeNative }

func (c *publicClient) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}

func (c *publicClient) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode}
}

func (c *publicClient) LoginURL(id string) string {
	return loginPath + "?id=" + url.QueryEscape(id)
}

func (c *publicClient) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}

func (c *publicClient) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}
