/** Users and groups of the host, for the `user` of a process task. */
import { ok, type Result, refuse } from '../base/result.ts';

export interface ProcessUser {
  readonly uid: number;
  readonly gid: number;
  /** Home folder; '' where the user has no entry. */
  readonly home: string;
}

/**
 * Resolves `user`, `uid`, `user:group`, `uid:gid` by the texts of /etc/passwd and /etc/group. A number without an
 * entry is accepted, as by container engines; its group is 0 unless given.
 */
export function resolveUser(spec: string, passwd: string, group: string): Result<ProcessUser> {
  const [userPart = '', groupPart] = spec.split(':');
  const entries = passwd.split('\n').map((line) => line.split(':'));
  const numeric = /^\d+$/.test(userPart);
  const entry = entries.find((fields) => (numeric ? fields[2] === userPart : fields[0] === userPart));
  if (entry === undefined && !numeric) return refuse(`user ${userPart} is not in /etc/passwd of this node`);
  const uid = numeric ? Number(userPart) : Number(entry?.[2]);
  const home = entry?.[5] ?? '';
  if (groupPart === undefined) return ok({ uid, gid: Number(entry?.[3] ?? 0), home });
  if (/^\d+$/.test(groupPart)) return ok({ uid, gid: Number(groupPart), home });
  const groupEntry = group
    .split('\n')
    .map((line) => line.split(':'))
    .find((fields) => fields[0] === groupPart);
  if (groupEntry === undefined) return refuse(`group ${groupPart} is not in /etc/group of this node`);
  return ok({ uid, gid: Number(groupEntry[2]), home });
}
