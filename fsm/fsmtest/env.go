package fsmtest

import (
	"bytes"
	"fmt"
	"time"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// Env is a machine, a clock that moves one second per command, and the log of all that was applied.
type Env struct {
	Machine *fsm.Machine
	Now     time.Time
	// Log has every entry applied so far; its indexes begin with 1.
	Log [][]byte

	subs map[string]*fsm.Subscription
	kept []byte // the snapshot that the script took last
}

// New returns an empty environment.
func New() *Env {
	return &Env{
		Machine: fsm.New(),
		Now:     time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		subs:    map[string]*fsm.Subscription{},
	}
}

// Apply encodes c, gives it the next second as its time unless it has one, and applies it. The error is
// Encode's, Apply's or a broken invariant: never a refusal.
func (e *Env) Apply(c fsm.Command) (fsm.Result, error) {
	e.Now = e.Now.Add(time.Second)
	if c.Header().At.IsZero() {
		c.Header().At = e.Now
	}
	entry, err := fsm.Encode(c)
	if err != nil {
		return fsm.Result{}, err
	}
	return e.ApplyEntry(entry)
}

// ApplyEntry applies an entry at the next index and checks the invariants.
func (e *Env) ApplyEntry(entry []byte) (fsm.Result, error) {
	r, err := e.Machine.Apply(san.Index(len(e.Log)+1), entry)
	if err != nil {
		return r, err
	}
	e.Log = append(e.Log, entry)
	if err := CheckInvariants(e.Machine.View()); err != nil {
		return r, fmt.Errorf("invariant broken after entry %d: %w", len(e.Log), err)
	}
	return r, nil
}

// Do applies c and returns its refusal, if any, as the error.
func (e *Env) Do(c fsm.Command) error {
	r, err := e.Apply(c)
	if err != nil {
		return err
	}
	return r.Err
}

// Bootstrap makes the cluster "test" with a join token "units" that approves, "hosts" and
// "stations", and an administrator's token "root".
func (e *Env) Bootstrap() error {
	join := func(name string, role san.Role, approve bool) fsm.JoinToken {
		return fsm.JoinToken{ID: san.TokenID(name), Name: name, Role: role, SecretHash: []byte("hash"), Approve: approve}
	}
	return e.Do(&fsm.InitCluster{ID: "test", CACertPEM: []byte("certificate"), CAKeySealed: []byte("sealed"),
		Tokens: []fsm.Token{{ID: "root", Name: "root", Role: fsm.TokenAdmin, SecretHash: []byte("hash")}},
		JoinTokens: []fsm.JoinToken{join("units", san.RoleUnit, true), join("hosts", san.RoleHost, false),
			join("stations", san.RoleStation, false)}})
}

// AddUnit enrols a unit, starts it and brings its media online. Its certificate is "cert-" and its id.
func (e *Env) AddUnit(id san.UnitID, media ...fsm.MediumInfo) error {
	cert := "cert-" + string(id)
	for _, c := range []fsm.Command{
		&fsm.Enrol{Role: san.RoleUnit, ID: string(id), CertSerial: cert, JoinToken: "units", PublicKey: []byte(id)},
		&fsm.UnitStarted{ID: id, CertSerial: cert, Incarnation: 1, APIAddress: "192.0.2.1:7002", Portal: "192.0.2.1:3260", Version: "test"},
		&fsm.UnitStorage{ID: id, CertSerial: cert, Incarnation: 1, Media: media},
	} {
		if err := e.Do(c); err != nil {
			return err
		}
	}
	return nil
}

// SnapshotBytes returns the machine's snapshot.
func (e *Env) SnapshotBytes() ([]byte, error) {
	var b bytes.Buffer
	_, err := e.Machine.Snapshot().WriteTo(&b)
	return b.Bytes(), err
}
