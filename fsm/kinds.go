package fsm

// Kind implements Command.
func (c *InitCluster) Kind() Kind { return KindInitCluster }

// Header implements Command.
func (c *InitCluster) Header() *Header { return &c.H }

func (c *InitCluster) apply(x *tx) (string, error) { return "", nil }
func (c *InitCluster) action() string              { return "" }

// Kind implements Command.
func (c *PutStation) Kind() Kind { return KindPutStation }

// Header implements Command.
func (c *PutStation) Header() *Header { return &c.H }

func (c *PutStation) apply(x *tx) (string, error) { return "", nil }
func (c *PutStation) action() string              { return "" }

// Kind implements Command.
func (c *Enrol) Kind() Kind { return KindEnrol }

// Header implements Command.
func (c *Enrol) Header() *Header { return &c.H }

func (c *Enrol) apply(x *tx) (string, error) { return "", nil }
func (c *Enrol) action() string              { return "" }

// Kind implements Command.
func (c *CreateToken) Kind() Kind { return KindCreateToken }

// Header implements Command.
func (c *CreateToken) Header() *Header { return &c.H }

func (c *CreateToken) apply(x *tx) (string, error) { return "", nil }
func (c *CreateToken) action() string              { return "" }

// Kind implements Command.
func (c *DeleteToken) Kind() Kind { return KindDeleteToken }

// Header implements Command.
func (c *DeleteToken) Header() *Header { return &c.H }

func (c *DeleteToken) apply(x *tx) (string, error) { return "", nil }
func (c *DeleteToken) action() string              { return "" }

// Kind implements Command.
func (c *CreateJoinToken) Kind() Kind { return KindCreateJoinToken }

// Header implements Command.
func (c *CreateJoinToken) Header() *Header { return &c.H }

func (c *CreateJoinToken) apply(x *tx) (string, error) { return "", nil }
func (c *CreateJoinToken) action() string              { return "" }

// Kind implements Command.
func (c *DeleteJoinToken) Kind() Kind { return KindDeleteJoinToken }

// Header implements Command.
func (c *DeleteJoinToken) Header() *Header { return &c.H }

func (c *DeleteJoinToken) apply(x *tx) (string, error) { return "", nil }
func (c *DeleteJoinToken) action() string              { return "" }

// Kind implements Command.
func (c *ApproveUnit) Kind() Kind { return KindApproveUnit }

// Header implements Command.
func (c *ApproveUnit) Header() *Header { return &c.H }

func (c *ApproveUnit) apply(x *tx) (string, error) { return "", nil }
func (c *ApproveUnit) action() string              { return "" }

// Kind implements Command.
func (c *UnitStarted) Kind() Kind { return KindUnitStarted }

// Header implements Command.
func (c *UnitStarted) Header() *Header { return &c.H }

func (c *UnitStarted) apply(x *tx) (string, error) { return "", nil }
func (c *UnitStarted) action() string              { return "" }

// Kind implements Command.
func (c *UnitStorage) Kind() Kind { return KindUnitStorage }

// Header implements Command.
func (c *UnitStorage) Header() *Header { return &c.H }

func (c *UnitStorage) apply(x *tx) (string, error) { return "", nil }
func (c *UnitStorage) action() string              { return "" }

// Kind implements Command.
func (c *SetUnitState) Kind() Kind { return KindUnitState }

// Header implements Command.
func (c *SetUnitState) Header() *Header { return &c.H }

func (c *SetUnitState) apply(x *tx) (string, error) { return "", nil }
func (c *SetUnitState) action() string              { return "" }

// Kind implements Command.
func (c *AddHost) Kind() Kind { return KindAddHost }

// Header implements Command.
func (c *AddHost) Header() *Header { return &c.H }

func (c *AddHost) apply(x *tx) (string, error) { return "", nil }
func (c *AddHost) action() string              { return "" }

// Kind implements Command.
func (c *RemoveHost) Kind() Kind { return KindRemoveHost }

// Header implements Command.
func (c *RemoveHost) Header() *Header { return &c.H }

func (c *RemoveHost) apply(x *tx) (string, error) { return "", nil }
func (c *RemoveHost) action() string              { return "" }

// Kind implements Command.
func (c *SetHostState) Kind() Kind { return KindHostState }

// Header implements Command.
func (c *SetHostState) Header() *Header { return &c.H }

func (c *SetHostState) apply(x *tx) (string, error) { return "", nil }
func (c *SetHostState) action() string              { return "" }

// Kind implements Command.
func (c *CreateVolume) Kind() Kind { return KindCreateVolume }

// Header implements Command.
func (c *CreateVolume) Header() *Header { return &c.H }

func (c *CreateVolume) apply(x *tx) (string, error) { return "", nil }
func (c *CreateVolume) action() string              { return "" }

// Kind implements Command.
func (c *DeleteVolume) Kind() Kind { return KindDeleteVolume }

// Header implements Command.
func (c *DeleteVolume) Header() *Header { return &c.H }

func (c *DeleteVolume) apply(x *tx) (string, error) { return "", nil }
func (c *DeleteVolume) action() string              { return "" }

// Kind implements Command.
func (c *Assign) Kind() Kind { return KindAssign }

// Header implements Command.
func (c *Assign) Header() *Header { return &c.H }

func (c *Assign) apply(x *tx) (string, error) { return "", nil }
func (c *Assign) action() string              { return "" }

// Kind implements Command.
func (c *Unassign) Kind() Kind { return KindUnassign }

// Header implements Command.
func (c *Unassign) Header() *Header { return &c.H }

func (c *Unassign) apply(x *tx) (string, error) { return "", nil }
func (c *Unassign) action() string              { return "" }

// Kind implements Command.
func (c *Reports) Kind() Kind { return KindReports }

// Header implements Command.
func (c *Reports) Header() *Header { return &c.H }

func (c *Reports) apply(x *tx) (string, error) { return "", nil }
func (c *Reports) action() string              { return "" }

// Kind implements Command.
func (c *SetUnit) Kind() Kind { return KindSetUnit }

// Header implements Command.
func (c *SetUnit) Header() *Header { return &c.H }

func (c *SetUnit) apply(x *tx) (string, error) { return "", nil }
func (c *SetUnit) action() string              { return "" }

// Kind implements Command.
func (c *RemoveStation) Kind() Kind { return KindRemoveStation }

// Header implements Command.
func (c *RemoveStation) Header() *Header { return &c.H }

func (c *RemoveStation) apply(x *tx) (string, error) { return "", nil }
func (c *RemoveStation) action() string              { return "" }

// Kind implements Command.
func (c *AuditRead) Kind() Kind { return KindAuditRead }

// Header implements Command.
func (c *AuditRead) Header() *Header { return &c.H }

func (c *AuditRead) apply(x *tx) (string, error) { return "", nil }
func (c *AuditRead) action() string              { return "" }

func newCommand(k Kind) Command {
	switch k {
	case KindInitCluster:
		return &InitCluster{}
	case KindPutStation:
		return &PutStation{}
	case KindEnrol:
		return &Enrol{}
	case KindCreateToken:
		return &CreateToken{}
	case KindDeleteToken:
		return &DeleteToken{}
	case KindCreateJoinToken:
		return &CreateJoinToken{}
	case KindDeleteJoinToken:
		return &DeleteJoinToken{}
	case KindApproveUnit:
		return &ApproveUnit{}
	case KindUnitStarted:
		return &UnitStarted{}
	case KindUnitStorage:
		return &UnitStorage{}
	case KindUnitState:
		return &SetUnitState{}
	case KindAddHost:
		return &AddHost{}
	case KindRemoveHost:
		return &RemoveHost{}
	case KindHostState:
		return &SetHostState{}
	case KindCreateVolume:
		return &CreateVolume{}
	case KindDeleteVolume:
		return &DeleteVolume{}
	case KindAssign:
		return &Assign{}
	case KindUnassign:
		return &Unassign{}
	case KindReports:
		return &Reports{}
	case KindSetUnit:
		return &SetUnit{}
	case KindRemoveStation:
		return &RemoveStation{}
	case KindAuditRead:
		return &AuditRead{}
	}
	return nil
}

func formatOf(Kind) uint16       { return 1 }
func (h *Header) check() error   { return nil }
func (x *tx) gate(Command) error { return nil }
