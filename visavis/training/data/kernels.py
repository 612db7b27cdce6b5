# mypy: ignore-errors
# Warp compiles these functions from their source; its language looks like Python but has types of its own, which mypy
# cannot follow.
"""Warp kernels of the rasteriser: one thread, loops in a fixed order, so the same input gives the same bytes.

Legend: V vertices, T triangles, M materials. Screen: x to the right, y down, in pixels, and one over the distance,
which is linear there. Colours are linear light.
"""

import warp as wp

wp.config.log_level = wp.LOG_ERROR
wp.config.enable_backward = False

SAMPLES = wp.constant(4)


@wp.struct
class Material:
    """How a surface looks. Textures are premultiplied linear RGBA, all in one array."""

    first_texel: wp.int32
    columns: wp.int32
    rows: wp.int32
    specular: wp.float32
    shininess: wp.float32
    # how far light reaches around the edge into the shade, as in skin and hair
    wrap: wp.float32
    tint: wp.vec3


@wp.struct
class View:
    """The camera and how the head is turned on the neck."""

    position: wp.vec3
    right: wp.vec3
    up: wp.vec3
    forward: wp.vec3
    # pixels at distance one
    focal_length: wp.float32
    neck: wp.vec3
    head_turn: wp.mat33
    head_shift: wp.vec3


@wp.struct
class Lighting:
    """A key light, a fill light, and a sky that is brighter above."""

    key_direction: wp.vec3
    # between a light and the camera
    key_halfway: wp.vec3
    fill_halfway: wp.vec3
    key_colour: wp.vec3
    fill_direction: wp.vec3
    fill_colour: wp.vec3
    sky_colour: wp.vec3
    ground_colour: wp.vec3
    cloth_colour: wp.vec3


@wp.func
def _texel(texels: wp.array[wp.vec4], material: Material, column: wp.int32, row: wp.int32) -> wp.vec4:
    x = wp.clamp(column, 0, material.columns - 1)
    y = wp.clamp(row, 0, material.rows - 1)
    return texels[material.first_texel + y * material.columns + x]


@wp.func
def _sampled(texels: wp.array[wp.vec4], material: Material, u: wp.float32, v: wp.float32) -> wp.vec4:
    x = u * wp.float32(material.columns) - 0.5
    y = v * wp.float32(material.rows) - 0.5
    left = wp.floor(x)
    top = wp.floor(y)
    a = x - left
    b = y - top
    column = wp.int32(left)
    row = wp.int32(top)
    upper = _texel(texels, material, column, row) * (1.0 - a) + _texel(texels, material, column + 1, row) * a
    lower = _texel(texels, material, column, row + 1) * (1.0 - a) + _texel(texels, material, column + 1, row + 1) * a
    return upper * (1.0 - b) + lower * b


@wp.func
def _diffuse(normal: wp.vec3, direction: wp.vec3, wrap: wp.float32) -> wp.float32:
    return wp.max((wp.dot(normal, direction) + wrap) / (1.0 + wrap), 0.0)


@wp.func
def _glint(normal: wp.vec3, direction: wp.vec3, halfway: wp.vec3, material: Material) -> wp.float32:
    """Specular light, with Schlick's quotient (1994) in place of a power."""
    cosine = wp.max(wp.dot(normal, halfway), 0.0)
    peak = cosine / (material.shininess * (1.0 - cosine) + cosine)
    return material.specular * peak * wp.clamp(4.0 * wp.dot(normal, direction), 0.0, 1.0)


@wp.func
def _shade(
    texel: wp.vec4, normal: wp.vec3, openness: wp.float32, cloth: wp.float32, material: Material, lighting: Lighting
) -> wp.vec3:
    """Light that a fragment sends to the camera, times its alpha."""
    above = 0.5 + 0.5 * normal[2]
    sky = lighting.sky_colour * above + lighting.ground_colour * (1.0 - above)
    # lamps reach into a cavity as far as it is open
    reach = wp.min(1.0, 0.25 + openness)
    key = lighting.key_colour * (reach * reach)
    fill = lighting.fill_colour * (reach * reach)
    key_diffuse = _diffuse(normal, lighting.key_direction, material.wrap)
    fill_diffuse = _diffuse(normal, lighting.fill_direction, material.wrap)
    light = sky * openness + key * key_diffuse + fill * fill_diffuse
    albedo = wp.cw_mul(wp.vec3(texel[0], texel[1], texel[2]), material.tint)
    # the neckline is sharper than the mesh: it is where the interpolated depth crosses zero, softened over 2 mm
    cover = wp.clamp(cloth * 500.0 + 0.5, 0.0, 1.0)
    hem = 0.8 + 0.2 * wp.clamp((cloth - 0.009) * 1000.0, 0.0, 1.0)
    albedo = albedo * (1.0 - cover) + lighting.cloth_colour * (cover * hem)
    key_glint = _glint(normal, lighting.key_direction, lighting.key_halfway, material)
    fill_glint = _glint(normal, lighting.fill_direction, lighting.fill_halfway, material)
    glint = (key * key_glint + fill * fill_glint) * (texel[3] * (1.0 - cover))
    return wp.cw_mul(albedo, light) + glint


@wp.kernel
def project(
    points_V: wp.array[wp.vec3],
    head_V: wp.array[wp.float32],
    view: View,
    posed_V: wp.array[wp.vec3],
    screen_V: wp.array[wp.vec3],
    centre: wp.float32,
):
    for i in range(points_V.shape[0]):
        point = points_V[i]
        turned = view.head_turn * (point - view.neck) + view.neck + view.head_shift
        # a share of the turn is not a rotation, but turns are small and the share changes slowly along the neck
        posed = point + (turned - point) * head_V[i]
        posed_V[i] = posed
        seen = posed - view.position
        inverse = 1.0 / wp.dot(seen, view.forward)
        scale = view.focal_length * inverse
        screen_V[i] = wp.vec3(
            wp.dot(seen, view.right) * scale + centre, centre - wp.dot(seen, view.up) * scale, inverse
        )


@wp.kernel
def find_normals(posed_V: wp.array[wp.vec3], corners_T: wp.array[wp.vec3i], normals_V: wp.array[wp.vec3]):
    for i in range(normals_V.shape[0]):
        normals_V[i] = wp.vec3(0.0, 0.0, 0.0)
    for t in range(corners_T.shape[0]):
        corner = corners_T[t]
        first = posed_V[corner[0]]
        area = wp.cross(posed_V[corner[1]] - first, posed_V[corner[2]] - first)
        normals_V[corner[0]] = normals_V[corner[0]] + area
        normals_V[corner[1]] = normals_V[corner[1]] + area
        normals_V[corner[2]] = normals_V[corner[2]] + area
    for i in range(normals_V.shape[0]):
        normals_V[i] = wp.normalize(normals_V[i])


@wp.struct
class Mesh:
    """Everything that belongs to triangles (three texture coordinates each) and to vertices."""

    corners: wp.array[wp.vec3i]
    coordinates: wp.array[wp.vec2]
    material: wp.array[wp.int32]
    materials: wp.array[Material]
    openness: wp.array[wp.float32]
    cloth: wp.array[wp.float32]
    screen: wp.array[wp.vec3]
    normals: wp.array[wp.vec3]


@wp.func
def _fragment(
    t: wp.int32, x: wp.float32, y: wp.float32, mesh: Mesh, texels: wp.array[wp.vec4], lighting: Lighting,
    to_eye: wp.vec3, blended: wp.int32,
) -> wp.vec4:  # fmt: skip
    """Colour (times alpha) and alpha of a triangle at a pixel's centre, or at the triangle's nearest point."""
    corner = mesh.corners[t]
    p0 = mesh.screen[corner[0]]
    p1 = mesh.screen[corner[1]]
    p2 = mesh.screen[corner[2]]
    inverse = 1.0 / ((p1[0] - p0[0]) * (p2[1] - p0[1]) - (p2[0] - p0[0]) * (p1[1] - p0[1]))
    dx = x - p0[0]
    dy = y - p0[1]
    c1 = wp.clamp(((p2[1] - p0[1]) * dx + (p0[0] - p2[0]) * dy) * inverse, 0.0, 1.0)
    c2 = wp.clamp(((p0[1] - p1[1]) * dx + (p1[0] - p0[0]) * dy) * inverse, 0.0, 1.0 - c1)
    c0 = 1.0 - c1 - c2
    uv = mesh.coordinates[3 * t] * c0 + mesh.coordinates[3 * t + 1] * c1 + mesh.coordinates[3 * t + 2] * c2
    material = mesh.materials[mesh.material[t]]
    texel = _sampled(texels, material, uv[0], uv[1])
    if texel[3] < 0.004:
        return wp.vec4(0.0, 0.0, 0.0, 0.0)
    normal = wp.normalize(mesh.normals[corner[0]] * c0 + mesh.normals[corner[1]] * c1 + mesh.normals[corner[2]] * c2)
    if blended == 1 and wp.dot(normal, to_eye) < 0.0:
        normal = -normal
    openness = mesh.openness[corner[0]] * c0 + mesh.openness[corner[1]] * c1 + mesh.openness[corner[2]] * c2
    cloth = mesh.cloth[corner[0]] * c0 + mesh.cloth[corner[1]] * c1 + mesh.cloth[corner[2]] * c2
    colour = _shade(texel, normal, openness, cloth, material, lighting)
    return wp.vec4(colour[0], colour[1], colour[2], texel[3])


@wp.func
def _hits(
    t: wp.int32, w1: wp.float32, w2: wp.float32, a1: wp.float32, b1: wp.float32, a2: wp.float32, b2: wp.float32,
    z0: wp.float32, z1: wp.float32, z2: wp.float32, pixel: wp.int32, blended: wp.int32,
    depths: wp.array[wp.float32], shown: wp.array[wp.int32], veil: wp.array[wp.vec4],
) -> wp.int32:  # fmt: skip
    """Which of a pixel's samples a triangle covers, as bits, in front of what is there; an opaque one is then there."""
    hits = wp.int32(0)
    for s in range(SAMPLES):
        # the rotated grid: each sample in a row and a column of its own
        sx = -0.125
        sy = -0.375
        if s == 1:
            sx = 0.375
            sy = -0.125
        if s == 2:
            sx = 0.125
            sy = 0.375
        if s == 3:
            sx = -0.375
            sy = 0.125
        v1 = w1 + a1 * sx + b1 * sy
        v2 = w2 + a2 * sx + b2 * sy
        if v1 >= 0.0 and v2 >= 0.0 and v1 + v2 <= 1.0:
            depth = z0 + v1 * z1 + v2 * z2
            if depth > depths[pixel + s]:
                if blended == 0:
                    depths[pixel + s] = depth
                    shown[pixel + s] = t
                    hits = hits | (1 << s)
                elif veil[pixel + s][3] > 0.02:
                    # behind what hides nearly all, nothing needs shading
                    hits = hits | (1 << s)
    return hits


@wp.kernel
def cover(
    triangles: wp.array[wp.int32],
    mesh: Mesh,
    texels: wp.array[wp.vec4],
    lighting: Lighting,
    to_eye: wp.vec3,
    size: wp.int32,
    blended: wp.int32,
    depths: wp.array[wp.float32],
    shown: wp.array[wp.int32],
    veil: wp.array[wp.vec4],
):
    """Opaque triangles: which one each sample shows. Blended ones: what they add in front of that."""
    for number in range(triangles.shape[0]):
        t = triangles[number]
        corner = mesh.corners[t]
        p0 = mesh.screen[corner[0]]
        p1 = mesh.screen[corner[1]]
        p2 = mesh.screen[corner[2]]
        area = (p1[0] - p0[0]) * (p2[1] - p0[1]) - (p2[0] - p0[0]) * (p1[1] - p0[1])
        # rows grow downwards, so a counter-clockwise front has a negative area; strands are seen from both sides
        if area < -1.0e-6 or (blended == 1 and area > 1.0e-6):
            left = wp.max(wp.int32(wp.floor(wp.min(p0[0], wp.min(p1[0], p2[0])))), 0)
            right = wp.min(wp.int32(wp.floor(wp.max(p0[0], wp.max(p1[0], p2[0])))), size - 1)
            top = wp.max(wp.int32(wp.floor(wp.min(p0[1], wp.min(p1[1], p2[1])))), 0)
            bottom = wp.min(wp.int32(wp.floor(wp.max(p0[1], wp.max(p1[1], p2[1])))), size - 1)
            # barycentric weights are linear in x and y
            inverse = 1.0 / area
            a1 = (p2[1] - p0[1]) * inverse
            b1 = (p0[0] - p2[0]) * inverse
            a2 = (p0[1] - p1[1]) * inverse
            b2 = (p1[0] - p0[0]) * inverse
            z1 = p1[2] - p0[2]
            z2 = p2[2] - p0[2]
            reach1 = 0.375 * (wp.abs(a1) + wp.abs(b1))
            reach2 = 0.375 * (wp.abs(a2) + wp.abs(b2))
            for y in range(top, bottom + 1):
                dy = wp.float32(y) + 0.5 - p0[1]
                for x in range(left, right + 1):
                    dx = wp.float32(x) + 0.5 - p0[0]
                    w1 = a1 * dx + b1 * dy
                    w2 = a2 * dx + b2 * dy
                    if w1 >= -reach1 and w2 >= -reach2 and w1 + w2 <= 1.0 + reach1 + reach2:
                        pixel = (y * size + x) * SAMPLES
                        hits = _hits(t, w1, w2, a1, b1, a2, b2, p0[2], z1, z2, pixel, blended, depths, shown, veil)
                        if blended == 1 and hits != 0:
                            colour = _fragment(
                                t, wp.float32(x) + 0.5, wp.float32(y) + 0.5, mesh, texels, lighting, to_eye, 1
                            )
                            for s in range(SAMPLES):
                                if (hits & (1 << s)) != 0:
                                    before = veil[pixel + s]
                                    after = before + colour * before[3]
                                    veil[pixel + s] = wp.vec4(
                                        after[0], after[1], after[2], before[3] * (1.0 - colour[3])
                                    )


@wp.kernel
def clear(depths: wp.array[wp.float32], shown: wp.array[wp.int32], veil: wp.array[wp.vec4]):
    for i in range(depths.shape[0]):
        depths[i] = 0.0
        shown[i] = -1
        veil[i] = wp.vec4(0.0, 0.0, 0.0, 1.0)


@wp.kernel
def resolve(
    mesh: Mesh,
    texels: wp.array[wp.vec4],
    lighting: Lighting,
    to_eye: wp.vec3,
    backdrop: wp.array2d[wp.vec3],
    depths: wp.array[wp.float32],
    shown: wp.array[wp.int32],
    veil: wp.array[wp.vec4],
    to_srgb: wp.array[wp.uint8],
    picture: wp.array3d[wp.uint8],
):
    """Shades what each pixel shows, once for all samples of one smooth surface, behind the blended layers."""
    columns = picture.shape[1]
    steps = wp.float32(to_srgb.shape[0] - 1)
    for y in range(picture.shape[0]):
        for x in range(columns):
            first = (y * columns + x) * SAMPLES
            total = wp.vec3(0.0, 0.0, 0.0)
            shaded = wp.int32(-2)
            surface = wp.int32(-2)
            depth = wp.float32(0.0)
            colour = wp.vec3(0.0, 0.0, 0.0)
            for s in range(SAMPLES):
                t = shown[first + s]
                if t != shaded:
                    if t < 0:
                        colour = backdrop[y, x]
                        shaded = t
                        surface = -1
                    elif mesh.material[t] != surface or wp.abs(depths[first + s] - depth) > 0.004 * depth:
                        lit = _fragment(t, wp.float32(x) + 0.5, wp.float32(y) + 0.5, mesh, texels, lighting, to_eye, 0)
                        colour = wp.vec3(lit[0], lit[1], lit[2])
                        shaded = t
                        surface = mesh.material[t]
                        depth = depths[first + s]
                front = veil[first + s]
                seen = wp.vec3(front[0], front[1], front[2]) + colour * front[3]
                total = total + wp.vec3(wp.min(seen[0], 1.0), wp.min(seen[1], 1.0), wp.min(seen[2], 1.0))
            for c in range(3):
                picture[y, x, c] = to_srgb[wp.int32(total[c] / float(SAMPLES) * steps + 0.5)]


@wp.kernel
def measure_openness(
    mesh: wp.uint64,
    points_V: wp.array[wp.vec3],
    normals_V: wp.array[wp.vec3],
    directions_D: wp.array[wp.vec3],
    start: wp.float32,
    reach: wp.float32,
    openness_V: wp.array[wp.float32],
):
    i = wp.tid()
    normal = normals_V[i]
    origin = points_V[i] + normal * start
    seen = wp.float32(0.0)
    total = wp.float32(0.0)
    for d in range(directions_D.shape[0]):
        cosine = wp.dot(normal, directions_D[d])
        if cosine > 0.0:
            total = total + cosine
            if not wp.mesh_query_ray_anyhit(mesh, origin, directions_D[d], reach):
                seen = seen + cosine
    openness_V[i] = seen / wp.max(total, 1.0e-6)
