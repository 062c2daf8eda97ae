package dataplane

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"

	"github.com/sandbar-san/sandbar/dataplane/agent"
	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/dataplane/iscsi"
	"github.com/sandbar-san/sandbar/dataplane/iscsi/meter"
	"github.com/sandbar-san/sandbar/dataplane/scsi"
	"github.com/sandbar-san/sandbar/dataplane/volume"
	"github.com/sandbar-san/sandbar/san"
)

const (
	// portalGroup is the tag of the one group of portals that a unit has (RFC 7143 §4.2.7).
	portalGroup = 1
	// targetPort is the relative target port identifier, and the target port group, of a
	// volume's only copy (SPC-4 §7.8.6).
	targetPort = 1
)

// gate is who may reach what, in memory: agent.Gate on one side, iscsi.Directory on the
// other. A volume has one target, and one logical unit that all its sessions share, from the first
// time that it is shown until it is forgotten.
type gate struct {
	unit    san.UnitID
	portal  string // host:port that SendTargets names
	volumes *volume.Manager
	server  *iscsi.Server
	log     *slog.Logger
	// reserved holds the volumes' persistent reservations.
	reserved disk.Dir

	mu      sync.RWMutex
	targets map[string]*target // by iSCSI name
}

type target struct {
	volume  san.VolumeID
	replica *volume.Replica
	lu      *scsi.LU
	meter   *meter.Target
	grants  map[san.HostID]*agent.Grant
}

func newGate(unit san.UnitID, portal string, volumes *volume.Manager, reserved disk.Dir, log *slog.Logger) *gate {
	return &gate{unit: unit, portal: portal, volumes: volumes, reserved: reserved, log: log, targets: map[string]*target{}}
}

func (g *gate) name(v san.VolumeID) string { return san.TargetName(g.unit, v) }

// Show implements agent.Gate.
func (g *gate) Show(grant agent.Grant) error {
	replica, err := g.volumes.Lookup(grant.Volume)
	if err != nil {
		return err
	}
	name := g.name(grant.Volume)
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.targets[name]
	if t == nil || t.replica != replica {
		reservations, err := openReservations(g.reserved, grant.Volume)
		if err != nil {
			return err
		}
		lu, err := scsi.NewLU(scsi.Config{
			ID: grant.Volume, BlockSizeBytes: replica.BlockSizeBytes(), Store: replica, TargetName: name,
			RelativePort: targetPort, PortGroup: targetPort, Reservations: reservations, Logger: g.log,
		})
		if err != nil {
			return err
		}
		t = &target{volume: grant.Volume, replica: replica, lu: lu, meter: meter.NewTarget(), grants: map[san.HostID]*agent.Grant{}}
		g.targets[name] = t
	}
	t.grants[grant.Host] = &grant
	return nil
}

// Hide implements agent.Gate.
func (g *gate) Hide(v san.VolumeID, h san.HostID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.targets[g.name(v)]; t != nil {
		delete(t.grants, h)
	}
}

// Close implements agent.Gate.
func (g *gate) Close(ctx context.Context, v san.VolumeID, h san.HostID, covers *agent.Grant) error {
	return g.server.CloseSessions(ctx, func(s iscsi.SessionInfo) bool {
		if s.Discovery || s.Volume != v || h != "" && s.Host != h {
			return false
		}
		return covers == nil || s.Generation != covers.Generation || !covers.Knows(s.Initiator) || !covers.Allows(s.RemoteAddr.Addr())
	})
}

// Grown implements agent.Gate.
func (g *gate) Grown(v san.VolumeID) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if t := g.targets[g.name(v)]; t != nil {
		t.lu.Grown()
	}
}

// Forget implements agent.Gate.
func (g *gate) Forget(v san.VolumeID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.targets, g.name(v))
	// What is made in the volume's place is reserved by nobody.
	if err := disk.RemoveRecord(g.reserved, string(v)); err != nil {
		g.log.Error("the reservations of a deleted volume stay behind", "volume", v, "err", err)
	}
}

// Discover implements iscsi.Directory.
func (g *gate) Discover(initiator string, from netip.Addr) []iscsi.Target {
	g.mu.RLock()
	defer g.mu.RUnlock()
	var out []iscsi.Target
	for name, t := range g.targets {
		if gr := t.of(initiator); gr != nil && gr.Allows(from) {
			out = append(out, iscsi.Target{Name: name, Portals: []string{g.portal + ",1"}})
		}
	}
	return out
}

// of returns the grant to the host that has this initiator name.
func (t *target) of(initiator string) *agent.Grant {
	for _, gr := range t.grants {
		if gr.Knows(initiator) {
			return gr
		}
	}
	return nil
}

// DiscoveryCHAP implements iscsi.Directory.
func (g *gate) DiscoveryCHAP(initiator, user string, from netip.Addr) []iscsi.CHAP {
	g.mu.RLock()
	defer g.mu.RUnlock()
	var out []iscsi.CHAP
	for _, t := range g.targets {
		if gr := t.of(initiator); gr != nil && gr.CHAPUser == user && gr.Allows(from) {
			out = append(out, iscsi.CHAP{User: gr.CHAPUser, Secret: gr.CHAPSecret})
		}
	}
	return out
}

// Admit implements iscsi.Directory.
func (g *gate) Admit(name, initiator string, from netip.Addr) (iscsi.Admission, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	t := g.targets[strings.ToLower(name)]
	if t == nil || len(t.grants) == 0 {
		return iscsi.Admission{}, san.Errorf(san.KindNotFound, "target %.223s is not served by unit %s", name, g.unit)
	}
	gr := t.of(initiator)
	if gr == nil {
		return iscsi.Admission{}, san.Errorf(san.KindDenied, "volume %s is not assigned to a host with initiator %.223s", t.volume, initiator)
	}
	if !gr.Allows(from) {
		return iscsi.Admission{}, san.Errorf(san.KindDenied, "host %s may not reach volume %s from %s; its allow-from ranges are %v", gr.Host, t.volume, from, gr.AllowFrom)
	}
	return iscsi.Admission{
		Volume: t.volume, Host: gr.Host, Generation: gr.Generation, PortalGroup: portalGroup, LU: t.lu, Meter: t.meter,
		CHAP: &iscsi.CHAP{User: gr.CHAPUser, Secret: gr.CHAPSecret},
	}, nil
}

// replicas is the manager as the agent sees it.
type replicas struct{ *volume.Manager }

// Create implements agent.Volumes.
func (r replicas) Create(ctx context.Context, spec volume.Spec) error {
	_, err := r.Manager.Create(ctx, spec)
	return err
}
