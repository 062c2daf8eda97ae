package iscsi

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

// loginError ends a login with a status; its text is for the log.
type loginError struct {
	status pdu.LoginStatus
	err    error
	// redirect is the portal that a redirection names.
	redirect string
}

func (e *loginError) Error() string { return fmt.Sprintf("%s: %v", e.status, e.err) }
func (e *loginError) Unwrap() error { return e.err }

func refuse(status pdu.LoginStatus, format string, args ...any) error {
	return &loginError{status: status, err: fmt.Errorf(format, args...)}
}

// login is the target's side of one login phase (RFC 7143 §6.3): a state machine without
// I/O. step takes one complete request and returns the answer.
type login struct {
	dir    Directory
	from   netip.Addr
	limits Limits
	logger *slog.Logger
	// random fills challenges; crypto/rand but in tests.
	random func([]byte)

	begun     bool
	first     pdu.LoginRequest
	stage     uint8
	discovery bool
	initiator string
	target    string
	admission Admission
	auth      authenticator
	neg       *pdu.Negotiator
	declared  bool // our MaxRecvDataSegmentLength has been told
	tagged    bool // so has the portal group
	finished  bool
}

func newLogin(dir Directory, from netip.Addr, limits Limits, logger *slog.Logger) *login {
	w := pdu.DefaultWishes()
	w.HeaderDigest, w.DataDigest = pdu.DigestAllow, pdu.DigestAllow
	w.InitialR2T, w.ImmediateData = false, true
	w.MaxRecvDataSegmentLength = limits.MaxRecvDataSegmentLength
	w.MaxBurstLength, w.FirstBurstLength = limits.MaxBurstLength, limits.FirstBurstLength
	w.MaxOutstandingR2T, w.DefaultTime2Retain = limits.MaxOutstandingR2T, 0
	return &login{dir: dir, from: from, limits: limits, logger: logger, random: func(b []byte) { _, _ = rand.Read(b) },
		neg: pdu.NewNegotiator(pdu.Target, w)}
}

// check judges a request's header alone, before its text; it applies to each PDU.
func (l *login) check(r *pdu.LoginRequest) error {
	switch {
	case r.VersionMin > 0:
		return refuse(pdu.LoginBadVersion, "initiator speaks versions %d to %d; this is version 0", r.VersionMin, r.VersionMax)
	case r.Transit && r.Continue:
		return refuse(pdu.LoginInitiatorError, "T and C bits are both set")
	case r.CSG > pdu.StageOperational:
		return refuse(pdu.LoginInitiatorError, "stage %d is not a stage of the login", r.CSG)
	case r.Transit && (r.NSG <= r.CSG || r.NSG == 2):
		return refuse(pdu.LoginInitiatorError, "transition from stage %d to %d", r.CSG, r.NSG)
	}
	if !l.begun {
		l.begun, l.first, l.stage = true, *r, r.CSG
		return nil
	}
	switch {
	case r.CSG != l.stage:
		return refuse(pdu.LoginInitiatorError, "request for stage %d in stage %d", r.CSG, l.stage)
	case r.ISID != l.first.ISID || r.CID != l.first.CID || r.ITT != l.first.ITT || r.TSIH != l.first.TSIH:
		return refuse(pdu.LoginInvalidRequest, "ISID, TSIH, CID or task tag changed during the login")
	}
	return nil
}

// step takes one request whose text is complete. The answer's numbers are the caller's to fill in.
func (l *login) step(r *pdu.LoginRequest, keys []pdu.KeyValue) (pdu.LoginResponse, []pdu.KeyValue, error) {
	resp := pdu.LoginResponse{CSG: l.stage, ISID: r.ISID, TSIH: r.TSIH, ITT: r.ITT}
	answers, err := l.negotiate(keys)
	if err != nil {
		return resp, nil, err
	}
	if !l.auth.done && l.stage == pdu.StageSecurity {
		more, err := l.auth.step(keys, r.Transit)
		if err != nil {
			return resp, nil, err
		}
		answers = append(answers, more...)
	}
	if !l.tagged && !l.discovery {
		l.tagged = true
		answers = append(answers, pdu.KeyValue{Key: pdu.KeyTargetPortalGroupTag, Value: strconv.Itoa(int(l.admission.PortalGroup))})
	}
	if l.stage == pdu.StageOperational {
		if l.auth.required {
			return resp, nil, refuse(pdu.LoginAuthFailure, "initiator %s skips the authentication that target %s asks for", l.initiator, l.target)
		}
		if !l.declared {
			l.declared = true
			answers = append(answers, l.neg.Offer()...)
		}
	}
	if r.Transit && (l.stage == pdu.StageOperational || l.auth.done) {
		resp.Transit, resp.NSG = true, r.NSG
		l.stage, l.finished = r.NSG, r.NSG == pdu.StageFullFeature
	}
	return resp, answers, nil
}

// negotiate feeds the keys to the negotiator and, the first time, learns who calls whom.
func (l *login) negotiate(keys []pdu.KeyValue) ([]pdu.KeyValue, error) {
	if l.initiator == "" {
		if v, ok := pdu.Find(keys, pdu.KeySessionType); ok {
			l.discovery = v == pdu.SessionDiscovery
			if !l.discovery && v != pdu.SessionNormal {
				return nil, refuse(pdu.LoginBadSessionType, "session type %.32q", v)
			}
		}
		l.neg.SetDiscovery(l.discovery)
	}
	if err := l.checkPlace(keys); err != nil {
		return nil, err
	}
	answers, err := l.neg.Receive(keys)
	if err != nil {
		return nil, refuse(pdu.LoginInitiatorError, "negotiation: %w", err)
	}
	if l.initiator == "" {
		return answers, l.identify()
	}
	return answers, nil
}

// checkPlace finds keys that stand where they must not: those of the authentication outside of its stage
// (RFC 7143 §12), and a session type after the first request (§13.21).
func (l *login) checkPlace(keys []pdu.KeyValue) error {
	for _, kv := range keys {
		if l.stage != pdu.StageSecurity && pdu.IsSecurityKey(kv.Key) {
			return refuse(pdu.LoginInitiatorError, "%s outside of the security stage", kv.Key)
		}
		if was, _ := l.neg.Declared(kv.Key); l.initiator != "" && kv.Key == pdu.KeySessionType && kv.Value != was {
			return refuse(pdu.LoginInitiatorError, "the session type comes after the first request")
		}
	}
	return nil
}

// identify judges the names of the first request.
func (l *login) identify() error {
	name, ok := l.neg.Declared(pdu.KeyInitiatorName)
	if !ok {
		return refuse(pdu.LoginMissingParameter, "the first request has no InitiatorName")
	}
	if err := san.CheckInitiatorName(name); err != nil {
		return refuse(pdu.LoginInitiatorError, "%w", err)
	}
	l.initiator = san.NormalizeInitiator(name)
	if l.discovery {
		l.auth = newAuthenticator(l.random, func(user string) []CHAP {
			return l.dir.DiscoveryCHAP(l.initiator, user, l.from)
		}, false)
		return nil
	}
	target, ok := l.neg.Declared(pdu.KeyTargetName)
	if !ok {
		return refuse(pdu.LoginMissingParameter, "a normal session's first request has no TargetName")
	}
	l.target = strings.ToLower(target)
	a, err := l.dir.Admit(l.target, l.initiator, l.from)
	if err != nil {
		return admitFailed(l.initiator, l.target, l.from, err)
	}
	if a.RedirectTo != "" {
		return &loginError{status: pdu.LoginTargetMovedTemp, redirect: a.RedirectTo,
			err: fmt.Errorf("target %s is at %s for now", l.target, a.RedirectTo)}
	}
	if a.LU == nil {
		return refuse(pdu.LoginTargetError, "target %s has no logical unit", l.target)
	}
	l.admission = a
	var lookup func(string) []CHAP
	if a.CHAP != nil {
		lookup = func(user string) []CHAP {
			if user != a.CHAP.User {
				return nil
			}
			return []CHAP{*a.CHAP}
		}
	}
	l.auth = newAuthenticator(l.random, lookup, a.CHAP != nil)
	return nil
}

// admitFailed turns Admit's refusal into a login status.
func admitFailed(initiator, target string, from netip.Addr, err error) error {
	status := pdu.LoginTargetError
	switch san.KindOf(err) {
	case san.KindNotFound:
		status = pdu.LoginNotFound
	case san.KindDenied:
		status = pdu.LoginForbidden
	case san.KindUnauthenticated:
		status = pdu.LoginAuthFailure
	case san.KindUnavailable:
		status = pdu.LoginUnavailable
	}
	return refuse(status, "initiator %s from %s to target %.223s: %w", initiator, from, target, err)
}

// asLoginError gives any error of a login its status.
func asLoginError(err error) *loginError {
	var le *loginError
	if errors.As(err, &le) {
		return le
	}
	return &loginError{status: pdu.LoginInitiatorError, err: err}
}
