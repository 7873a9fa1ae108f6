//! The types that every server has: their OIDs are the same everywhere (`src/include/catalog/pg_type.dat`).

use super::column::ColumnType;

/// What a built-in type's values look like, before the type modifier is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Integer,
    Boolean,
    Real,
    Double,
    Numeric,
    Money,
    Bytea,
    Bit,
    VarBit,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    Point,
    Geometry,
    Vector,
    Hstore,
}

impl Shape {
    /// The type of a column with `type_modifier` (−1 for none), where money has `money_digits`; `None` where it takes these and they are
    /// not known.
    pub(super) fn column_type(
        self,
        type_modifier: i32,
        money_digits: Option<u8>,
    ) -> Option<ColumnType> {
        Some(match self {
            Self::Text => ColumnType::Text,
            Self::Integer => ColumnType::Integer,
            Self::Boolean => ColumnType::Boolean,
            Self::Real => ColumnType::Real,
            Self::Double => ColumnType::Double,
            Self::Numeric => ColumnType::Numeric,
            Self::Money => ColumnType::Money {
                digits: money_digits?,
            },
            Self::Bytea => ColumnType::Bytea,
            // `bit` without a modifier holds bits of any number (`CREATE TABLE … AS` can make such a column).
            Self::Bit => match u32::try_from(type_modifier) {
                Ok(width) if width > 0 => ColumnType::Bit { width },
                _ => ColumnType::VarBit,
            },
            Self::VarBit => ColumnType::VarBit,
            Self::Date => ColumnType::Date,
            Self::Time => ColumnType::Time,
            Self::TimeTz => ColumnType::TimeTz,
            Self::Timestamp => ColumnType::Timestamp,
            Self::TimestampTz => ColumnType::TimestampTz {
                digits: u8::try_from(type_modifier).map_or(6, |digits| digits.min(6)),
            },
            Self::Interval => ColumnType::Interval,
            Self::Point => ColumnType::Point,
            Self::Geometry => ColumnType::Geometry,
            Self::Vector => ColumnType::Vector,
            Self::Hstore => ColumnType::Hstore,
        })
    }
}

/// A type that every server has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Builtin {
    pub(super) oid: u32,
    /// `pg_type.typname`.
    pub(super) name: &'static str,
    /// OID of the type of arrays of it; 0 for none.
    pub(super) array: u32,
    pub(super) shape: Shape,
}

const fn of(oid: u32, name: &'static str, array: u32, shape: Shape) -> Builtin {
    Builtin {
        oid,
        name,
        array,
        shape,
    }
}

/// `typdelim` of the arrays of a type.
pub(super) const fn delimiter(element: u32) -> u8 {
    // box alone has commas of its own.
    if element == 603 { b';' } else { b',' }
}

/// The built-in type `oid`.
pub(super) fn by_oid(oid: u32) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|builtin| builtin.oid == oid)
}

/// The built-in type whose arrays have the type `oid`.
pub(super) fn by_array_oid(oid: u32) -> Option<&'static Builtin> {
    let mut builtins = BUILTINS.iter();
    builtins.find(|builtin| builtin.array == oid && oid != 0)
}

/// The built-in type `name`.
pub(super) fn by_name(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|builtin| builtin.name == name)
}

/// In the order of their OIDs; `int2vector` and `oidvector`, though arrays inside, are written as numbers between blanks.
pub(super) static BUILTINS: &[Builtin] = &[
    of(16, "bool", 1000, Shape::Boolean),
    of(17, "bytea", 1001, Shape::Bytea),
    of(18, "char", 1002, Shape::Text),
    of(19, "name", 1003, Shape::Text),
    of(20, "int8", 1016, Shape::Integer),
    of(21, "int2", 1005, Shape::Integer),
    of(22, "int2vector", 1006, Shape::Text),
    of(23, "int4", 1007, Shape::Integer),
    of(24, "regproc", 1008, Shape::Text),
    of(25, "text", 1009, Shape::Text),
    of(26, "oid", 1028, Shape::Integer),
    of(27, "tid", 1010, Shape::Text),
    of(28, "xid", 1011, Shape::Text),
    of(29, "cid", 1012, Shape::Text),
    of(30, "oidvector", 1013, Shape::Text),
    of(114, "json", 199, Shape::Text),
    of(142, "xml", 143, Shape::Text),
    of(194, "pg_node_tree", 0, Shape::Text),
    of(600, "point", 1017, Shape::Point),
    of(601, "lseg", 1018, Shape::Text),
    of(602, "path", 1019, Shape::Text),
    of(603, "box", 1020, Shape::Text),
    of(604, "polygon", 1027, Shape::Text),
    of(628, "line", 629, Shape::Text),
    of(650, "cidr", 651, Shape::Text),
    of(700, "float4", 1021, Shape::Real),
    of(701, "float8", 1022, Shape::Double),
    of(718, "circle", 719, Shape::Text),
    of(774, "macaddr8", 775, Shape::Text),
    of(790, "money", 791, Shape::Money),
    of(829, "macaddr", 1040, Shape::Text),
    of(869, "inet", 1041, Shape::Text),
    of(1033, "aclitem", 1034, Shape::Text),
    of(1042, "bpchar", 1014, Shape::Text),
    of(1043, "varchar", 1015, Shape::Text),
    of(1082, "date", 1182, Shape::Date),
    of(1083, "time", 1183, Shape::Time),
    of(1114, "timestamp", 1115, Shape::Timestamp),
    of(1184, "timestamptz", 1185, Shape::TimestampTz),
    of(1186, "interval", 1187, Shape::Interval),
    of(1266, "timetz", 1270, Shape::TimeTz),
    of(1560, "bit", 1561, Shape::Bit),
    of(1562, "varbit", 1563, Shape::VarBit),
    of(1700, "numeric", 1231, Shape::Numeric),
    of(1790, "refcursor", 2201, Shape::Text),
    of(2202, "regprocedure", 2207, Shape::Text),
    of(2203, "regoper", 2208, Shape::Text),
    of(2204, "regoperator", 2209, Shape::Text),
    of(2205, "regclass", 2210, Shape::Text),
    of(2206, "regtype", 2211, Shape::Text),
    of(2950, "uuid", 2951, Shape::Text),
    of(2970, "txid_snapshot", 2949, Shape::Text),
    of(3220, "pg_lsn", 3221, Shape::Text),
    of(3361, "pg_ndistinct", 0, Shape::Text),
    of(3402, "pg_dependencies", 0, Shape::Text),
    of(3614, "tsvector", 3643, Shape::Text),
    of(3615, "tsquery", 3645, Shape::Text),
    of(3642, "gtsvector", 3644, Shape::Text),
    of(3734, "regconfig", 3735, Shape::Text),
    of(3769, "regdictionary", 3770, Shape::Text),
    of(3802, "jsonb", 3807, Shape::Text),
    of(3904, "int4range", 3905, Shape::Text),
    of(3906, "numrange", 3907, Shape::Text),
    of(3908, "tsrange", 3909, Shape::Text),
    of(3910, "tstzrange", 3911, Shape::Text),
    of(3912, "daterange", 3913, Shape::Text),
    of(3926, "int8range", 3927, Shape::Text),
    of(4072, "jsonpath", 4073, Shape::Text),
    of(4089, "regnamespace", 4090, Shape::Text),
    of(4096, "regrole", 4097, Shape::Text),
    of(4191, "regcollation", 4192, Shape::Text),
    of(4451, "int4multirange", 6150, Shape::Text),
    of(4532, "nummultirange", 6151, Shape::Text),
    of(4533, "tsmultirange", 6152, Shape::Text),
    of(4534, "tstzmultirange", 6153, Shape::Text),
    of(4535, "datemultirange", 6155, Shape::Text),
    of(4536, "int8multirange", 6157, Shape::Text),
    of(4600, "pg_brin_bloom_summary", 0, Shape::Text),
    of(4601, "pg_brin_minmax_multi_summary", 0, Shape::Text),
    of(5017, "pg_mcv_list", 0, Shape::Text),
    of(5038, "pg_snapshot", 5039, Shape::Text),
    of(5069, "xid8", 271, Shape::Text),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_oid_and_no_name_stands_twice() {
        assert!(BUILTINS.is_sorted_by(|a, b| a.oid < b.oid));
        let arrays = BUILTINS.iter().filter(|builtin| builtin.array != 0);
        let oids: Vec<u32> = arrays.map(|builtin| builtin.array).collect();
        let distinct: HashSet<u32> = oids
            .iter()
            .copied()
            .chain(BUILTINS.iter().map(|builtin| builtin.oid))
            .collect();
        assert_eq!(distinct.len(), oids.len() + BUILTINS.len());
        let names: HashSet<&str> = BUILTINS.iter().map(|builtin| builtin.name).collect();
        assert_eq!(names.len(), BUILTINS.len());
    }
}
