// Command oidc-provider is the identity provider of the test cluster.
//
// The protocol is github.com/zitadel/oidc, a certified implementation; this program adds what that
// library leaves to its user: people from a file, one public client, a login page, and a store in
// memory. Keys and codes end with the process. It is for tests only.
package main

import (
	"crypto/rand"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	log.SetFlags(log.LstdFlags | log.LUTC)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	issuer := flag.String("issuer", "", "https://ADDRESS:PORT, where it also listens")
	certificate := flag.String("certificate", "", "certificate (PEM) for that address")
	key := flag.String("key", "", "its private key (PEM)")
	people := flag.String("people", "", `JSON: {"NAME": {"password", "email", "groups": […]}}`)
	client := flag.String("client", "discoveryflow", "id of the public client")
	redirects := flag.String("redirects", "", "the client's addresses, separated by commas; "+
		"with localhost, any port does")
	lifetime := flag.Duration("lifetime", time.Hour, "how long an ID token is valid")
	flag.Parse()
	address, err := url.Parse(*issuer)
	if err != nil || address.Scheme != "https" || address.Port() == "" {
		return fmt.Errorf("-issuer %q: give https://ADDRESS:PORT", *issuer)
	}
	if *redirects == "" {
		return fmt.Errorf("-redirects: give the client's addresses")
	}
	known, err := readPeople(*people)
	if err != nil {
		return fmt.Errorf("-people: %w", err)
	}
	store, err := newStore(known, &publicClient{
		id: *client, redirects: strings.Split(*redirects, ","), lifetime: *lifetime,
	})
	if err != nil {
		return err
	}
	config := &op.Config{
		CodeMethodS256:  true,
		SupportedScopes: scopes,
		SupportedClaims: append([]string{groupsScope}, op.DefaultSupportedClaims...),
	}
	if _, err := rand.Read(config.CryptoKey[:]); err != nil {
		return err
	}
	provider, err := op.NewProvider(config, store, op.StaticIssuer(*issuer))
	if err != nil {
		return err
	}
	routes := http.NewServeMux()
	routes.Handle(loginPath, op.NewIssuerInterceptor(provider.IssuerFromRequest).Handler(
		&login{store: store, provider: provider}))
	routes.Handle("/", provider)
	server := &http.Server{Addr: address.Host, Handler: routes, ReadHeaderTimeout: 10 * time.Second}
	log.Printf("%s for client %s and %d people", *issuer, *client, len(known))
	fmt.Fprintln(os.Stderr, "listening on", address.Host)
	return server.ListenAndServeTLS(*certificate, *key)
}

const (
	loginPath   = "/login"
	groupsScope = "groups"
)

var scopes = []string{oidc.ScopeOpenID, oidc.ScopeEmail, oidc.ScopeProfile, groupsScope}
