package access

// Action is what a call does, as far as rights go.
type Action string

// The actions.
const (
	// ActionHealth asks whether a station works.
	ActionHealth Action = "health"
	// ActionEnrol trades a join token, which is judged by CheckJoin, for a certificate.
	ActionEnrol Action = "enrol"
	// ActionRead shows, lists or watches anything but secrets.
	ActionRead Action = "read"
	// ActionCredentialsRead reveals the CHAP secret of a volume's assignment to Object.Target.
	ActionCredentialsRead Action = "credentials.read"
	// ActionVolumeCreate makes a volume and, if Object.Target is set, assigns it.
	ActionVolumeCreate Action = "volume.create"
	// ActionVolumeAssign and ActionVolumeUnassign give a volume to Object.Target, or take it away.
	ActionVolumeAssign   Action = "volume.assign"
	ActionVolumeUnassign Action = "volume.unassign"
	// ActionVolumeGrow makes a volume larger.
	ActionVolumeGrow Action = "volume.grow"
	// ActionVolumeDelete deletes a volume.
	ActionVolumeDelete Action = "volume.delete"
	// ActionVolumeWrite changes a volume in any other way.
	ActionVolumeWrite Action = "volume.write"
	// ActionHostWrite registers, changes, approves or removes hosts.
	ActionHostWrite Action = "host.write"
	// ActionUnitWrite approves, changes or removes units.
	ActionUnitWrite Action = "unit.write"
	// ActionStationWrite changes the stations' group: leadership, members, settings, keys.
	ActionStationWrite Action = "station.write"
	// ActionTokenWrite makes or deletes operator and join tokens.
	ActionTokenWrite Action = "token.write"
	// ActionAgentSession holds the stream of the unit or host agent that Object names.
	ActionAgentSession Action = "agent.session"
	// ActionCertificateRenew gets the part that Object names a new certificate.
	ActionCertificateRenew Action = "certificate.renew"
	// ActionPeerForward hands the leader a call of somebody else, whom the leader then judges.
	ActionPeerForward Action = "peer.forward"
	// ActionPeerSubmit hands the leader what agents reported.
	ActionPeerSubmit Action = "peer.submit"
	// ActionPeerStatus asks a station for heartbeat ages and bootstrap state.
	ActionPeerStatus Action = "peer.status"
	// ActionPeerJoin asks the leader to take a station into the group.
	ActionPeerJoin Action = "peer.join"
)

// actor is a column of the matrix.
type actor uint8

const (
	asNobody actor = iota // a principal that is not understood: no column, no rights
	asAnonymous
	asAdmin
	asOperator
	asViewer
	asProvisioner
	asHost
	asUnit
	asPending // a unit or host that nobody approved
	asStation
	actorCount
)

var actorNames = [actorCount]string{"nobody", "anonymous", "admin", "operator", "viewer", "provisioner", "host", "unit", "pending", "station"}

// actor finds p's column. It is the one place where a principal's fields are judged
// together.
func (p Principal) actor() actor {
	switch p.Kind {
	case KindAnonymous:
		return asAnonymous
	case KindStation:
		return asStation
	case KindUnit, KindHost:
		switch {
		case p.Name == "" || p.Kind == KindHost && p.Host != hostOf(p):
			return asNobody
		case !p.Approved:
			return asPending
		case p.Kind == KindUnit:
			return asUnit
		}
		return asHost
	case KindToken:
		if CheckRole(p.Role, p.Host) != nil {
			return asNobody
		}
		switch p.Role {
		case RoleAdmin:
			return asAdmin
		case RoleOperator:
			return asOperator
		case RoleViewer:
			return asViewer
		case RoleProvisioner:
			return asProvisioner
		}
	}
	return asNobody
}

// scope says on which objects an actor may do an action.
type scope uint8

const (
	never scope = iota
	// always: on every object.
	always
	// self: on the part that the caller itself is.
	self
	// ownHost: on its host's row and on volumes assigned to its host or made by it.
	ownHost
	// forHost: a new volume, assigned to its host or to none.
	forHost
	// byHost: on such volumes, where the act concerns its own host only.
	byHost
	// sole: on such volumes, as long as no other host has or made them.
	sole
)

// rights is a row of the matrix: a scope for each actor. What is left out is never.
type rights map[actor]scope

// rightsOf returns the row of an action, nil for one that does not exist.
func rightsOf(action Action) rights {
	switch action {
	case ActionHealth, ActionEnrol:
		row := rights{}
		for a := asAnonymous; a < actorCount; a++ {
			row[a] = always
		}
		return row
	case ActionRead:
		return rights{asAdmin: always, asOperator: always, asViewer: always, asProvisioner: ownHost, asHost: ownHost}
	case ActionCredentialsRead:
		return rights{asAdmin: always, asProvisioner: byHost, asHost: byHost}
	case ActionVolumeCreate:
		return rights{asAdmin: always, asOperator: always, asProvisioner: forHost, asHost: forHost}
	case ActionVolumeAssign, ActionVolumeUnassign:
		return rights{asAdmin: always, asOperator: always, asProvisioner: byHost, asHost: byHost}
	case ActionVolumeDelete, ActionVolumeGrow:
		return rights{asAdmin: always, asOperator: always, asProvisioner: sole, asHost: sole}
	case ActionVolumeWrite, ActionHostWrite, ActionUnitWrite:
		return rights{asAdmin: always, asOperator: always}
	case ActionStationWrite, ActionTokenWrite:
		return rights{asAdmin: always}
	case ActionAgentSession:
		return rights{asHost: self, asUnit: self, asPending: self}
	case ActionCertificateRenew:
		return rights{asHost: self, asUnit: self, asPending: self, asStation: self}
	case ActionPeerForward, ActionPeerSubmit, ActionPeerStatus, ActionPeerJoin:
		return rights{asStation: always}
	}
	return nil
}
