package main

import (
	"html/template"
	"net/http"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// login is the page where somebody signs in, or refuses to.
type login struct {
	store    *store
	provider *op.Provider
}

var page = template.Must(template.New("login").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Test provider</title>
<h1>Sign in to {{.Client}}</h1>
{{with .Problem}}<p role="alert">{{.}}</p>{{end}}
<form method="post">
<input type="hidden" name="id" value="{{.ID}}">
<p><label>Name <input name="name" autocomplete="off"></label>
<p><label>Password <input name="password" type="password" autocomplete="off"></label>
<p><button name="answer" value="yes">Sign in</button> <button name="answer" value="no">Refuse</button>
</form></html>
`))

func (l *login) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
	id := r.FormValue("id")
	request, err := l.store.AuthRequestByID(r.Context(), id)
	if err != nil {
		http.Error(w, "this sign-in is over; begin again", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	problem := ""
	if r.Method == http.MethodPost {
		if r.PostFormValue("answer") == "no" {
			_ = l.store.DeleteAuthRequest(r.Context(), id)
			refused := oidc.ErrAccessDenied().WithDescription("the person refused to sign in")
			op.AuthRequestError(w, r, request, refused, l.provider)
			return
		}
		err := l.store.signIn(id, r.PostFormValue("name"), r.PostFormValue("password"))
		if err == nil {
			http.Redirect(w, r, op.AuthCallbackURL(l.provider)(r.Context(), id), http.StatusSeeOther)
			return
		}
		problem = err.Error()
		w.WriteHeader(http.StatusForbidden)
	}
	_ = page.Execute(w, map[string]string{"ID": id, "Client": request.GetClientID(), "Problem": problem})
}
