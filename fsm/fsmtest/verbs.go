package fsmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sandbar-san/sandbar/fsm"
	"github.com/sandbar-san/sandbar/san"
)

// Run carries out one line of a script and returns its answer, line by line.
func (e *Env) Run(text string) []string {
	l := parse(text)
	switch l.word(0) {
	case "show":
		return e.show(l)
	case "settle":
		if err := e.Settle(); err != nil {
			return []string{"error: " + err.Error()}
		}
		return []string{"settled"}
	case "wait":
		d, err := time.ParseDuration(l.word(1))
		if err != nil {
			return []string{"error: " + err.Error()}
		}
		e.Now = e.Now.Add(d)
		return []string{"it is " + e.Now.Format(time.RFC3339)}
	case "watch", "changes":
		return e.watch(l)
	case "snapshot", "restore":
		return e.snapshot(l)
	case "entry":
		entry := []byte(l.word(1))
		_, err := e.ApplyEntry(entry)
		return []string{fmt.Sprintf("halted at %d: %v", e.Machine.AppliedIndex(), err)}
	}
	c := e.command(l)
	if c == nil {
		return []string{"error: no such command: " + text}
	}
	h := c.Header()
	h.Principal, h.RequestID = l.opt("as", "token:root"), san.RequestID(l.opt("request", ""))
	if h.RequestID != "" {
		h.Fingerprint = []byte(strings.Join(l.words, " "))
	}
	return e.answer(c)
}

func (e *Env) answer(c fsm.Command) []string {
	r, err := e.Apply(c)
	switch {
	case err != nil:
		return []string{"error: " + err.Error()}
	case r.Err != nil:
		return []string{fmt.Sprintf("refused (%s): %v", san.KindOf(r.Err), r.Err)}
	case r.Replayed:
		return []string{fmt.Sprintf("as answered at %d: %s", r.Index, r.Object)}
	}
	return []string{strings.TrimSpace(fmt.Sprintf("%d: %s", r.Index, r.Object))}
}

// command makes the command that l describes, nil if there is none.
func (e *Env) command(l line) fsm.Command {
	switch l.word(0) {
	case "cluster", "station", "token", "join-token", "enrol":
		return e.memberCommand(l)
	case "unit":
		return unitCommand(l)
	case "host":
		return hostCommand(l)
	case "volume":
		return e.volumeCommand(l)
	case "report":
		return e.reportCommand(l)
	case "read":
		return &fsm.AuditRead{Action: l.word(1), Object: l.word(2)}
	}
	return nil
}

func (e *Env) ttl(l line) time.Time {
	d, err := time.ParseDuration(l.opt("ttl", ""))
	if err != nil {
		return time.Time{}
	}
	return e.Now.Add(d)
}

func (e *Env) memberCommand(l line) fsm.Command {
	id := l.word(2)
	switch l.word(0) + " " + l.word(1) {
	case "cluster init":
		return &fsm.InitCluster{ID: san.ClusterID(id), CACertPEM: []byte("certificate"), CAKeySealed: []byte("sealed"),
			Tokens: []fsm.Token{{ID: "root", Name: "root", Role: fsm.TokenAdmin, SecretHash: []byte("hash")}}}
	case "cluster format":
		return &fsm.SetFormat{Version: uint32(l.number("version", 0))}
	case "station put":
		return &fsm.PutStation{Station: fsm.Station{ID: san.StationID(id), APIAddress: l.opt("api", "192.0.2.9:7000"),
			RaftAddress: l.opt("raft", "192.0.2.9:7001"), Version: l.opt("version", "test"), Format: uint32(l.number("format", 0))}}
	case "station remove":
		return &fsm.RemoveStation{ID: san.StationID(id)}
	case "token create":
		return &fsm.CreateToken{Token: fsm.Token{ID: san.TokenID(id), Name: id, Role: l.opt("role", fsm.TokenOperator),
			Host: san.HostID(l.opt("host", "")), SecretHash: []byte("hash"), ExpiresAt: e.ttl(l)}}
	case "token delete":
		return &fsm.DeleteToken{ID: san.TokenID(id)}
	case "join-token create":
		return &fsm.CreateJoinToken{Token: fsm.JoinToken{ID: san.TokenID(id), Name: id, Role: san.Role(l.opt("role", "")),
			SecretHash: []byte("hash"), ExpiresAt: e.ttl(l), Approve: l.opt("approve", "") == "yes", MaxUses: uint32(l.number("uses", 0))}}
	case "join-token delete":
		return &fsm.DeleteJoinToken{ID: san.TokenID(id)}
	}
	if l.word(0) != "enrol" {
		return nil
	}
	return &fsm.Enrol{Role: san.Role(l.word(1)), ID: id, CertSerial: l.opt("cert", "cert-"+id), JoinToken: san.TokenID(l.opt("token", "")),
		PublicKey: []byte(l.opt("key", "key-"+id)), Renewal: l.opt("renewal", "") == "yes", Initiators: l.list("initiators")}
}

func unitCommand(l line) fsm.Command {
	id := san.UnitID(l.word(2))
	cert, inc := l.opt("cert", "cert-"+string(id)), san.Incarnation(l.number("start", 1))
	switch l.word(1) {
	case "approve":
		return &fsm.ApproveUnit{ID: id}
	case "started":
		return &fsm.UnitStarted{ID: id, CertSerial: cert, Incarnation: inc, APIAddress: l.opt("api", "192.0.2.1:7002"),
			Portal: l.opt("portal", "192.0.2.1:3260"), Version: "test"}
	case "storage":
		return &fsm.UnitStorage{ID: id, CertSerial: cert, Incarnation: inc, Media: media(l.list("media")), Replicas: replicas(l.list("replicas"))}
	case "state":
		return &fsm.SetUnitState{ID: id, Incarnation: inc, State: fsm.UnitState(l.word(3)), Reason: l.opt("reason", "")}
	case "set":
		c := &fsm.SetUnit{ID: id, Labels: labels(l)}
		if v, ok := l.opts["spare"]; ok {
			spare := v == "yes"
			c.Spare = &spare
		}
		return c
	}
	return nil
}

// media reads "m1:25": id and capacity in extents.
func media(list []string) []fsm.MediumInfo {
	var out []fsm.MediumInfo
	for _, s := range list {
		id, capacity, _ := strings.Cut(s, ":")
		n, _ := strconv.ParseUint(capacity, 10, 32)
		out = append(out, fsm.MediumInfo{ID: san.MediumID(id), Path: "/media/" + id, CapacityExtents: uint32(n)})
	}
	return out
}

// replicas reads "v-db1:80MiB": id and size.
func replicas(list []string) []fsm.ReplicaInfo {
	var out []fsm.ReplicaInfo
	for _, s := range list {
		id, size, _ := strings.Cut(s, ":")
		n, _ := san.ParseSize(size)
		out = append(out, fsm.ReplicaInfo{Volume: san.VolumeID(id), SizeBytes: n, EndLBA: san.LBA(n/512 - 1), Extents: san.ExtentsFor(n)})
	}
	return out
}

func labels(l line) map[string]string {
	var out map[string]string
	for k, v := range l.opts {
		if name, ok := strings.CutPrefix(k, "label."); ok {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = v
		}
	}
	return out
}

func hostCommand(l line) fsm.Command {
	id := san.HostID(l.word(2))
	switch l.word(1) {
	case "add":
		return &fsm.AddHost{ID: id, Initiators: l.list("initiators"), AllowFrom: l.list("from")}
	case "remove":
		return &fsm.RemoveHost{ID: id}
	case "state":
		return &fsm.SetHostState{ID: id, CertSerial: l.opt("cert", "cert-"+string(id)), Incarnation: san.Incarnation(l.number("start", 1)),
			State: fsm.HostState(l.word(3)), Addresses: l.list("addresses"), Initiators: l.list("initiators"), Version: "test"}
	}
	return nil
}

// volumeID is the id that a script's volume of that name has, unless it was given another one.
func (e *Env) volumeID(name string) san.VolumeID {
	if v := e.Machine.View().VolumeByName(name); v != nil {
		return v.ID
	}
	return san.VolumeID("v-" + name)
}

func (e *Env) volumeCommand(l line) fsm.Command {
	name, host := l.word(2), san.HostID(l.opt("host", ""))
	switch l.word(1) {
	case "create":
		size, err := san.ParseSize(l.opt("size", "80MiB"))
		if err != nil {
			return nil
		}
		c := &fsm.CreateVolume{ID: san.VolumeID(l.opt("id", "v-"+name)), Name: name, SizeBytes: size, BlockSizeBytes: uint32(l.number("block", 512)),
			Labels: labels(l), Owner: san.HostID(l.opt("owner", "")), Host: host, Copies: copies(l.list("on"))}
		if host != "" {
			c.CHAPUser, c.CHAPSecretSealed = "user", []byte("sealed")
		}
		return c
	case "grow":
		size, err := san.ParseSize(l.opt("size", ""))
		if err != nil {
			return nil
		}
		c := &fsm.GrowVolume{ID: e.volumeID(name), SizeBytes: size}
		for _, cp := range copies(l.list("on")) {
			c.Copies = append(c.Copies, fsm.CopyGrowth{Unit: cp.Unit, Slices: cp.Slices})
		}
		return c
	case "delete":
		return &fsm.DeleteVolume{ID: e.volumeID(name)}
	case "assign":
		return &fsm.Assign{Volume: e.volumeID(name), Host: host, CHAPUser: "user", CHAPSecretSealed: []byte("sealed")}
	case "unassign":
		return &fsm.Unassign{Volume: e.volumeID(name), Host: host}
	}
	return nil
}

// copies reads "u1/m1:20": unit, medium, extents. Successive slices of one unit make one copy.
func copies(list []string) []fsm.Copy {
	var out []fsm.Copy
	for _, s := range list {
		unit, rest, _ := strings.Cut(s, "/")
		medium, extents, _ := strings.Cut(rest, ":")
		n, _ := strconv.ParseUint(extents, 10, 32)
		if len(out) == 0 || out[len(out)-1].Unit != san.UnitID(unit) {
			out = append(out, fsm.Copy{Unit: san.UnitID(unit), Role: fsm.RolePrimary})
		}
		c := &out[len(out)-1]
		c.Slices = append(c.Slices, fsm.Slice{Medium: san.MediumID(medium), Extents: uint32(n)})
	}
	return out
}

// reportCommand reads "report unit u1 replica-ready db1" and its like.
func (e *Env) reportCommand(l line) fsm.Command {
	kinds := map[string]fsm.ReportKind{"replica-ready": fsm.ReportReplicaReady, "replica-deleted": fsm.ReportReplicaDeleted,
		"replica-failed": fsm.ReportReplicaFailed, "assignment-ready": fsm.ReportAssignmentReady, "released": fsm.ReportReleased,
		"assignment-error": fsm.ReportAssignmentError}
	id := l.word(2)
	size, _ := san.ParseSize(l.opt("size", "0"))
	return &fsm.Reports{Reports: []fsm.Report{{Role: san.Role(l.word(1)), Agent: id, CertSerial: l.opt("cert", "cert-"+id),
		Incarnation: san.Incarnation(l.number("start", 1)), Kind: kinds[l.word(3)], Volume: e.volumeID(l.word(4)),
		Host: san.HostID(l.opt("host", "")), Generation: san.Generation(l.number("generation", 0)), SizeBytes: size, Error: l.opt("error", "")}}}
}

// watch begins a subscription of a name, changes says what it has seen since.
func (e *Env) watch(l line) []string {
	name := l.word(1)
	if l.word(0) == "watch" {
		s, err := e.Machine.Subscribe(san.Index(l.number("from", 0)))
		if err != nil {
			return []string{"error: " + err.Error()}
		}
		e.subs[name] = s
		return []string{"watching"}
	}
	s := e.subs[name]
	if s == nil {
		return []string{"error: nobody watches as " + name}
	}
	var out []string
	for {
		// An ended context makes Next return what is there and never wait.
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		changes, err := s.Next(ctx)
		if err != nil && !errors.Is(err, context.Canceled) {
			return append(out, "error: "+err.Error())
		}
		if len(changes) == 0 {
			return append(out, "no more")
		}
		for _, c := range changes {
			what := "changed"
			if c.Old == nil {
				what = "new"
			} else if c.New == nil {
				what = "gone"
			}
			out = append(out, fmt.Sprintf("%d: %s %s %s", c.Index, c.Table, c.ID, what))
		}
	}
}

func (e *Env) snapshot(l line) []string {
	if l.word(0) == "snapshot" {
		b, err := e.SnapshotBytes()
		if err != nil {
			return []string{"error: " + err.Error()}
		}
		e.kept = b
		return []string{fmt.Sprintf("kept as of %d", e.Machine.AppliedIndex())}
	}
	b := e.kept
	if cut := int(l.number("without-last", 0)); cut > 0 && cut < len(b) {
		b = b[:len(b)-cut]
	}
	if err := e.Machine.Restore(bytes.NewReader(b)); err != nil {
		return []string{"error: " + err.Error()}
	}
	e.Log = e.Log[:e.Machine.AppliedIndex()]
	return []string{fmt.Sprintf("restored as of %d", e.Machine.AppliedIndex())}
}
